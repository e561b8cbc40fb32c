"""Stop rules that read how sure an answer is, against fixed budgets of the same mean, on recorded thoughts.

    python -m benchmarks.stops

At each look of a growing thought the answer is asked for, and the thought ends at the first look whose `p_top` (the
probability of the answer) or `p_margin` (its lead over the next) reaches a threshold. What is paid is the tokens of the
look it ended at and one token for each look before (`governor.learn.costs.LOOK`); a fixed budget pays for no look. For
each wanted mean cost the threshold whose mean cost is closest is chosen on the other folds' questions, and so is the
mixture of two neighbouring fixed budgets, drawn blind to the question, that costs as much as the rule does on them.
Compared are the accuracies on the held-out questions, corrected for what the two then cost: by the accuracy per token of
the neighbouring budgets there. Intervals are paired bootstraps over questions, each with all its samples; thresholds are
not chosen anew in them. The records are thinking_budgets_dev in ../shared/data (or GOVERNOR_DATA).
"""
