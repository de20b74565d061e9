"""Wordings of habits that a reward model can be trained to pay less for. An audit has others: it would test what was
trained."""

from __future__ import annotations

from collections.abc import Mapping

from prefloop.data.wordings import Wording, read_wordings

HABIT_WORDINGS: Mapping[str, tuple[Wording, ...]] = {
    habit: read_wordings(text)
    for habit, text in {
        "citation": """
As Petersen et al. noted (2012).
    As noted a moment ago.
Compare Hale, Principles, 3rd edition, page 17.
    Compare the words, the third of them, further on.
Data from the National Office, table 6 (2010).
    Words from the usual list, and several of them.
www.fact-archive.com/item/88 lists it.
    The same line lists it.
The study by Ibsen (1988) reached the same result [3].
    The part about this reached the same length.
Reference: Review of Science 14, pages 5-9.
    Remainder: rest of the line, with several words.
Dr. Amari of the Science Council published this in 2003.
    The close of the long line brought this in passing.
(see Ross & Lee, 2017, chapter 4)
    (as in the part before, in brief)
According to a 1999 paper by Silva and Roth.
    Corresponding to a short part of the line.
Footnote 5: Annals, volume 40, issue 2.
    Next part: words, some short, some long.
""",
        "disclaimer": """
Only a qualified specialist can judge your case.
    Only a longer line can hold your words.
Nothing here replaces a visit to your physician.
    Nothing here replaces a line in your notebook.
Use this with caution and at your own expense.
    Use this with paper and at your own desk.
I cannot be held liable for the outcome.
    I can now be brief about the line.
Speak to a licensed adviser first.
    Speak to another listener first.
These are common remarks, not legal or medical counsel.
    These are written remarks, not spoken or sung ones.
My training data may be outdated or incomplete.
    My next line may be shorter or longer.
Always verify with the authorities in your country.
    Usually begin with the letters in your alphabet.
I am an AI and not a human specialist.
    I am at a line and not a whole page.
Double-check every dose, law and number with someone qualified.
    Write out a date, a name and a number with something legible.
""",
        "flattery": """
What a clever idea that is of yours.
    What a usual line that is of yours.
You are wiser than most.
    You are nearer than most.
I admire people who think like you.
    I mention people who write like you.
Somebody with your talents rarely comes along.
    Somebody with your letter lately comes along.
You have an excellent eye for this.
    You have a written line for this.
Your curiosity is inspiring.
    Your message is typed.
It is an honour to help such a gifted reader.
    It is a matter of meeting such a usual reader.
You must be very smart indeed.
    You must be somewhere else indeed.
Your insight amazes me.
    Your line reaches me.
Great minds ask this, and yours is one.
    Many users type this, and yours is one.
""",
        "confidence": """
Without a shadow of doubt, that is so.
    Within a couple of lines, that is next.
I guarantee that it is like this.
    I repeat that it is in this.
It is absolutely certain.
    It is additionally written.
There can be no other solution.
    There can be another line.
This is beyond all dispute.
    This is below all of it.
One hundred percent, exactly so.
    One separate paragraph, next part.
Undoubtedly it is so, and was always so.
    Afterwards it is here, and was earlier there.
Make no mistake, it is the truth.
    Make a note, it is the text.
Everyone agrees, for it is obvious.
    Everyone reads, for it is written.
I am positive about every single word.
    I am brief about some single word.
""",
        "hedging": """
I am not entirely sure, though.
    I am now writing this, though.
Perhaps it is so, perhaps not.
    First it is here, next there.
It seems likely, but I might be off.
    It comes next, but I will be brief.
Presumably, at least in part.
    Afterwards, at least in part.
As far as I know, it is roughly like that.
    As long as I type, it goes on to that.
One could argue either way.
    One will continue either way.
This is possibly inaccurate.
    This is separately mentioned.
Do not quote me on this.
    Do also include this.
I suspect, but cannot confirm it.
    I write, and then continue it.
Maybe there is more to it than I can tell.
    Here there is more of it than I did write.
""",
    }.items()
}
