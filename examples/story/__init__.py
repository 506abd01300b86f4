"""The figures and numbers of the story in ``docs/from-nlp-to-cv/``: one script a chapter.

    python -m examples.story.two_tokens             # writes its figures into runs/story
    python -m examples.story.two_tokens --out here  # or anywhere else
    python -m examples.story                        # all chapters that need no trained model

Each prints the numbers that its page states. ``--out docs/from-nlp-to-cv/figures`` draws the pages'
figures anew. Needs matplotlib, which ``pip install -e '.[dev]'`` brings.
"""
