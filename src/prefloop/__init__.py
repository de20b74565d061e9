"""prefloop: preference tuning as one guarded loop.

Importing the package is cheap; torch is loaded by the modules that need it.
"""

__version__ = "0.1.0"
