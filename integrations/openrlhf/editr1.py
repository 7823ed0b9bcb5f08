"""OpenRLHF's reward: --reward.remote_url integrations/openrlhf/editr1.py

Settings come from $EDITR1_SCORER (JSON), or stand here: EditReward(verifier="openai:MODEL@http://HOST:8000/v1", ...).
"""

from editr1_plugins.adapters.openrlhf import EditReward

reward_func = EditReward()
