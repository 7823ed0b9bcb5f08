"""What EasyR1 is pointed at: worker.reward.reward_function=integrations/easyr1/editr1.py:compute_score"""

from editr1_plugins.adapters.easyr1 import REWARD_NAME, REWARD_TYPE, compute_judge_score, compute_score

__all__ = ["REWARD_NAME", "REWARD_TYPE", "compute_judge_score", "compute_score"]
