"""Chats of whatever messages: ids whose prompt is a prefix and whose mask covers what the assistant
said, or a RenderError.
"""

import made
import tiny
from hypothesis import given, settings

from data import chat

TOKENIZER = tiny.chat_tokenizer()


@settings(max_examples=2_000)
@given(made.mostly(made.chats), made.mostly(made.chats))
def test_chats(prompt, more):
    try:
        before = chat.prompt_ids(TOKENIZER, prompt)
    except chat.RenderError as error:
        assert str(error)
        before = None
    answer = [each for each in more if isinstance(each, dict)][-1:] if isinstance(more, list) else 3
    for row in ({"messages": prompt}, {"prompt": prompt, "completion": answer}):
        try:
            found = chat.render(TOKENIZER, row)
        except chat.RenderError as error:
            assert str(error)
            continue
        assert len(found.ids) == len(found.mask) and found.mask[-1] == 1
        if "prompt" in row:
            assert before is not None
            if isinstance(prompt, list):
                start = found.mask.index(1)
                assert found.ids[: len(before)] == before == found.ids[:start]
