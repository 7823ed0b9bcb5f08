"""The reward server: one `EditRRMReward` behind HTTP, in the forms that other trainers' stock clients speak."""
