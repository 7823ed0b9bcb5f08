"""OpenRLHF's reward for a policy that is a judge: --reward.remote_url integrations/openrlhf/judge.py

A row's label (--data.label_key) is the score of people in 0..10, or {"score": 7.5, "questions": ["...", ...]}.
"""

from editr1_plugins.adapters.openrlhf import JudgeReward

reward_func = JudgeReward()
