"""The contributor's side: pull a base, finetune it at home, send back weights."""
