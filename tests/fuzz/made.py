"""What the fuzzers have in common: texts, values and chats, most of them nearly good."""

from hypothesis import strategies as st

# Pieces that some reader gives a meaning to, and characters that are none or hardly any.
PIECES = (
    "<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "}", "{", "\\frac{1}{2}", "####",
    "A:", "the answer is", "Step 1:", "步骤1", "第一", "- ", "1.", "\n", "\n\n", " ", "18", "-0.5",
    "1,450", "50\\%", "9^{9^9}", "!", "x=", "\\sqrt", "$", "(", "]", ",", "\x00", "\ud800",
    "\u202e", "é", "😀", "<|im_end|>", "<|im_start|>", "<s>", "NaN", "1e999", "\\begin{pmatrix}",
    "Human:", "\n\nAssistant:", "\u2028", "\ufeff", "//", "%", "²", "½", "١٢", "\\text{", "∞",
)  # fmt: skip
texts = st.one_of(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.text(max_size=20))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), texts, st.sampled_from([2**70, -0.0])
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def mostly(good, bad=values):
    """The good one, three times in four."""
    return st.one_of(good, good, good, bad)


roles = mostly(st.sampled_from(["user", "assistant", "system", "tool"]))
messages = mostly(
    st.fixed_dictionaries({"role": roles, "content": mostly(texts)}, optional={"name": texts})
)
chats = st.one_of(
    st.lists(messages, max_size=4),
    st.tuples(texts, texts).map(
        lambda pair: [
            {"role": "user", "content": pair[0]},
            {"role": "assistant", "content": pair[1]},
        ]
    ),
)
