"""A configuration of PKU's Edit-R1 with the reward "editr1": scripts/train_nft_kontext.py --config THIS_FILE:NAME

NAME is one of the host's own: kontext_mllm_reward, kontext_mllm_reward_ban_prompt (config/kontext_nft.py) or
qwen_mllm_reward (config/qwen_image_edit_nft.py, with scripts/train_nft_qwen_image_edit.py).
"""

from editr1_plugins.adapters.flow_grpo import host_config, install

# The judge. Without a verifier here, $EDITR1_VERIFIER names it. `missing="error"` ends the run at the first edit that
# cannot be judged; `record="FOLDER"` keeps every judged edit with its verdicts.
JUDGE = {}

# All rewards of the run. `mllm_score_continue` is the host's own judge, which needs its reward server.
WEIGHTS = {"editr1": 1.0}


def get_config(name):
    install(**JUDGE)
    model = "qwen_image_edit" if name.startswith("qwen") else "kontext"
    return host_config(f"config/{model}_nft.py", name, WEIGHTS)
