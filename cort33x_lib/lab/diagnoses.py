"""What the clinic says: what proves each diagnosis, and what tells two of them apart.

A sentence in APART belongs to the true diagnosis and a plausible wrong one, in this
order. It says which measurement decides between them, and never names the true one.
"""

HEALTHY = "healthy"

DIAGNOSES = {
    "unscaled accumulation": (
        "With it, the gradient's norm is larger by the number of micro-batches from"
        " the first step on, and the clip acts on far more steps; the loss is hardly"
        " moved, because AdamW does not care how long a gradient is."
    ),
    "shifted target": (
        "With it, the training loss stays high, for the token after the next is"
        " harder to tell, and the held-out loss, whose targets are right, turns and"
        " rises."
    ),
    "leaking mask": (
        "With it, both losses run far ahead of every healthy run: the model sees what"
        " it is asked for, in held-out text too. Given time, they fall below the floor,"
        " which is impossible by honest means."
    ),
    "unshuffled data": (
        "With it, neighbouring steps read documents that begin alike, in the same"
        " order in every epoch: the training loss goes up and down and repeats itself"
        " one epoch later."
    ),
    "validation in training": (
        "With it, the gap closes: held-out text is read as well as training text,"
        " and the training loss itself is no better than healthy."
    ),
    "wrong tokenizer": (
        "With it, the training loss falls as it should, while the held-out loss is"
        " far above that and soon rises: an id means one thing here and another"
        " there."
    ),
    "schedule never decays": (
        "With it, the update ratios stay where the warm-up left them, while the rate"
        " that the schedule asked for falls; a short run may not show it in the loss."
    ),
    "large epsilon": (
        "With it, every update is too small for the rate that was asked for, in all"
        " groups, from the start, and both losses come down slowly."
    ),
    "learning-rate spike": (
        "With it, all update ratios jump for a few steps and the loss jumps with"
        " them, before any gradient has grown."
    ),
    "dead layer": (
        "With it, one group has a gradient of exactly zero in every step, and so no"
        " update; all others look healthy."
    ),
    "frozen embedding": (
        "With it, one group has a gradient and never an update: somebody computes"
        " its share and nobody applies it."
    ),
    "wrong weight decay": (
        "With it, the update ratios of the matrices are too large at a healthy"
        " rate, for the weights that they are divided by have shrunk."
    ),
    HEALTHY: (
        "Healthy means that every panel stays close to the references; one signal a"
        " little outside is noise until a second one agrees."
    ),
}

APART = {
    ("dead layer", "frozen embedding"): (
        "Close: one group has no update. But look at its gradient too: here it is"
        " zero as well, so there is nothing that anybody could apply."
    ),
    ("frozen embedding", "dead layer"): (
        "Close: one group has no update. But its gradient is not zero: it is"
        " computed and then not applied. A dead part would have neither."
    ),
    ("wrong tokenizer", "shifted target"): (
        "Close: what is examined is not what was trained. But asking for another"
        " token would be a harder task, and the training loss would stay high; here"
        " it falls."
    ),
    ("shifted target", "wrong tokenizer"): (
        "Close: what is examined is not what was trained. But with other ids the"
        " task is as easy as ever, and the training loss would fall as in the"
        " references; here it stays high."
    ),
    ("leaking mask", "validation in training"): (
        "Both make the held-out loss better than it should be. But whoever has only"
        " read the held-out text before gains there and not in the training loss."
        " Here both are far ahead of the references."
    ),
    ("validation in training", "leaking mask"): (
        "Both make the held-out loss better than it should be. But a model that"
        " sees its answers is ahead in training too. Compare both losses with the"
        " references."
    ),
    ("schedule never decays", "learning-rate spike"): (
        "Close: the rate applied is not the rate asked for. But a spike lasts a few"
        " steps and the loss jumps; here the updates are too large for good."
    ),
    ("learning-rate spike", "schedule never decays"): (
        "Close: the rate applied is not the rate asked for. But see for how long:"
        " here the update ratios come back to the references."
    ),
    ("schedule never decays", "wrong weight decay"): (
        "Both make updates large beside the weights. But look at when: here they"
        " are healthy until the schedule should have brought them down."
    ),
    ("wrong weight decay", "schedule never decays"): (
        "Both make updates large beside the weights. But the updates here do come"
        " down with the schedule; they are too large before that as well."
    ),
    ("wrong weight decay", "large epsilon"): (
        "Both change how large updates are beside the weights, in opposite directions."
        " Which way do they go here?"
    ),
    ("large epsilon", "wrong weight decay"): (
        "Both change how large updates are beside the weights, in opposite directions."
        " Which way do they go here?"
    ),
    ("large epsilon", "frozen embedding"): (
        "Both learn slowly. But a frozen group stands out from the others; here all"
        " groups are slow alike."
    ),
    ("frozen embedding", "large epsilon"): (
        "Both learn slowly. But a large epsilon slows all groups; compare the"
        " groups with each other here."
    ),
    ("unscaled accumulation", "learning-rate spike"): (
        "Both show long gradients. But after a spike they come and go, and the loss"
        " goes with them; here they are long from the first step and the loss does"
        " not mind."
    ),
    ("learning-rate spike", "unscaled accumulation"): (
        "Both show long gradients. But gradients summed by mistake are long in"
        " every step, the first included; here it is a matter of a few."
    ),
    ("unshuffled data", "validation in training"): (
        "Held-out text that was trained on closes the gap between the two losses. Here"
        " the gap is as wide as in the references, or wider."
    ),
    ("validation in training", "unshuffled data"): (
        "Data in order makes the loss repeat itself and leaves the gap alone. Here the"
        " loss has no echo to speak of; look at the gap."
    ),
    ("unshuffled data", "learning-rate spike"): (
        "Both make the training loss jump. But a spike of the rate shows in the"
        " update ratios in the same step; here they are as smooth as in the"
        " references."
    ),
    ("learning-rate spike", "unshuffled data"): (
        "Both make the training loss jump. But data in order does not change how"
        " far the weights move; look at the update ratios where the loss jumps."
    ),
    ("unscaled accumulation", HEALTHY): (
        "The losses are as they should be. The other panels have scales as well:"
        " compare the numbers, not only the shapes."
    ),
    ("dead layer", HEALTHY): (
        "The losses are nearly as they should be: the other layers carry on. Look"
        " at the panels that have a line for each group."
    ),
    ("validation in training", HEALTHY): (
        "Healthy runs read their training text better than text they have never"
        " seen. Compare how much better, here and there."
    ),
}
