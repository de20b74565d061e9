"""prefloop beside its strongest peer, TRL: `python -m benchmarks.peers`, after `make bench-peers` has made the peers.

Every job runs as several processes at once that take their steps in turn (`turns`): prefloop (`ours`), TRL at its
defaults, and TRL as a grid finds it fastest (`grid`). `figures` makes numbers of what they report.
"""
