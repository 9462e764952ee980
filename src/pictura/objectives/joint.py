"""What the objectives of a model that reads words beside patches have in common."""

from torch import nn

from pictura.models.vilt import JointTask, ViLT


def check_joint(model: nn.Module, task: JointTask) -> ViLT:
    """The model. ValueError for one that is no ViLT, or has no head for `task`."""
    if not isinstance(model, ViLT):
        raise ValueError(f"needs a model of kind vilt, not {getattr(model.config, 'kind', type(model).__name__)}")
    if task not in model.heads:
        raise ValueError(f"needs a head for {task}; set model.tasks to [{', '.join([*model.config.tasks, task])}]")
    return model
