"""A configuration of flow_grpo with the reward "editr1": scripts/train_flux_kontext.py --config THIS_FILE:NAME

NAME is one of the edit configurations in the host's config/grpo.py, such as counting_flux_kontext. It stays as it is
but for its rewards; `--config.dataset=...` and every other field can be overridden as usual.
"""

from editr1_plugins.adapters.flow_grpo import host_config, install

# The judge. Without a verifier here, $EDITR1_VERIFIER names it. `missing="error"` ends the run at the first edit that
# cannot be judged; `record="FOLDER"` keeps every judged edit with its verdicts.
JUDGE = {}

# All rewards of the run; the host's own names may stand beside ours, as in {"editr1": 0.8, "image_similarity": 0.2}.
WEIGHTS = {"editr1": 1.0}


def get_config(name):
    install(**JUDGE)
    return host_config("config/grpo.py", name, WEIGHTS)
