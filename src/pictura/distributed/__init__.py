"""Several processes as one: who they are, features gathered with gradients, models replicated or sharded."""
