"""ms-swift's plug-in: swift rlhf --external_plugins integrations/ms_swift/editr1.py --reward_funcs editr1 ...

Settings come from $EDITR1_SCORER (JSON), or stand here: register(verifier="openai:MODEL@http://HOST:8000/v1", ...).
"""

from editr1_plugins.adapters.ms_swift import register

register()
