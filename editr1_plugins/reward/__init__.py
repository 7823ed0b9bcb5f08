"""From verdicts to a reward: `rrm.EditRRMReward`, and what it is made of."""
