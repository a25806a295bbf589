"""The settings in which Vowpal Wabbit is run: all of them are named here, so that its best is the best of many, and anybody can add one.

Each is `--cb_explore_adf` with one of the ways to explore and one of the ways to see the context. Without interactions its score is
a sum in which what is known of a user moves all arms alike; `-q sa` lets each arm have weights of its own, `ssa` those of products of
two features too. "standardised" gives it numbers that are centred and scaled by the mean and deviation of the whole set, which a
learner that begins with the first row can't know: Usher's learners standardise by what they have seen.
"""

EXPLORATIONS = {
    "epsilon 5 %": "--epsilon 0.05",
    "bag": "--bag 5",
    "bag, greedify": "--bag 10 --greedify",
    "cover": "--cover 5 --nounif",
    "squarecb": "--squarecb --gamma_scale 10",
    "rnd": "--rnd 3 --epsilon 0",
    "softmax": "--softmax --lambda 10",
    "synthcover": "--synthcover",
}

# How numbers are given, and what is learned from them.
CONTEXTS = [
    ("as they are", "-l 0.05"),
    ("as they are", "-l 0.5"),
    ("as they are", "-q sa -l 0.5"),
    ("as they are", "-q sa --interactions ssa -l 2"),
    ("standardised", "-q sa -l 0.5"),
    ("standardised", "-q sa --interactions ssa -l 2"),
]


def settings():
    """Of each setting the exploration's name, how numbers are given, and the command line."""
    for name, exploration in EXPLORATIONS.items():
        for numbers, options in CONTEXTS:
            yield name, numbers, f"--cb_explore_adf {exploration} {options}"
