"""Objectives: pure functions on tensors, importing torch alone, returning unreduced values.

Shapes, everywhere in this package:

    C   completion tokens of all sequences at hand, one flat axis without padding
    N   sequences at hand; `sequence: [C]` is the one of each token, `lengths: [N]` its length
    P   prompts, G completions of each of them
    T   time steps, the last axis; `...` stands for any leading axes, such as environments
    V   vocabulary, or actions

Log-probabilities are natural logs of the sampled token under the temperature-scaled softmax.
Half-precision inputs are computed in float32; float64 stays float64. Gradients flow through what is
being trained (the policy's log-probabilities, the critic's values) and through nothing else:
references, old log-probabilities, advantages and returns are constants whatever graph they come
from.

    reduce      the only mean: weights that make the loss independent of how a batch is cut
    advantage   group, leave-one-out, REINFORCE++, returns, temporal differences, GAE
    kl          exact divergence and the estimators k1, k2, k3
    entropy     of distributions and of logits, and the bonus with the right sign
    policy      PPO clip and penalty, GRPO, GSPO, CISPO
    importance  weights that correct the sampler's distribution to the trainer's
    value       the critic's loss
    preference  DPO, IPO and hinge on pairs, KTO on single completions
    ranking     Bradley-Terry for reward models, with margin and centring
    distill     forward, reverse and Jensen-Shannon divergence of a student from a teacher
"""
