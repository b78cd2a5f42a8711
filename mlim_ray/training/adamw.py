"""AdamW (Loshchilov and Hutter, 2019); the paper names no optimiser: our choice.

It is torch's own fused kernel, and gives what `torch.optim.AdamW(fused=True)` gives, to the last bit. Torch's class
loads the compiler with its first step, whether anything is compiled or not: more than a second, and 67 MiB in each
process that trains, of which a search has many.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_MEAN, _SQUARE, _STEP = "exp_avg", "exp_avg_sq", "step"
_EPSILON = 1e-8


class AdamW:
    """Updates parameters from their gradients; those without a gradient stay as they are.

    Args:
        groups: parameters by the weight decay that they get.
        betas: of the running mean of the gradient and of its square.
    """

    def __init__(self, groups: Iterable[tuple[list[nn.Parameter], float]], betas: tuple[float, float]) -> None:
        self.param_groups: list[dict[str, Any]] = [
            {"params": parameters, "weight_decay": weight_decay, "betas": betas, "lr": 0.0}
            for parameters, weight_decay in groups
        ]
        self._state: dict[nn.Parameter, dict[str, Tensor]] = {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, or set them to zero."""
        for parameter in self._parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad = torch.zeros_like(parameter.grad)

    def step(self) -> None:
        """One update, each group's with its `lr`."""
        with torch.no_grad():
            for group in self.param_groups:
                parameters = [each for each in group["params"] if each.grad is not None]
                if parameters:
                    self._update(parameters, group)

    def state_dict(self) -> dict[str, Any]:
        """Means, squares and steps by the parameter's place, in the form of torch's own."""
        place = {parameter: number for number, parameter in enumerate(self._parameters())}
        groups = [{**group, "params": [place[each] for each in group["params"]]} for group in self.param_groups]
        return {"state": {place[each]: dict(state) for each, state in self._state.items()}, "param_groups": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state, torch's own included; rate, betas and weight decay stay as they are here."""
        parameters = self._parameters()
        self._state = {
            parameters[number]: {
                name: value.to(parameters[number].device, torch.float32 if name == _STEP else parameters[number].dtype)
                for name, value in kept.items()
            }
            for number, kept in state["state"].items()
        }

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _update(self, parameters: list[nn.Parameter], group: Mapping[str, Any]) -> None:
        states = [self._state_of(parameter) for parameter in parameters]
        means, squares, steps = ([state[name] for state in states] for name in (_MEAN, _SQUARE, _STEP))
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            [*parameters],
            [each.grad for each in parameters if each.grad is not None],
            means,
            squares,
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=_EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def _state_of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        if parameter not in self._state:
            self._state[parameter] = {
                _STEP: torch.zeros((), dtype=torch.float32, device=parameter.device),
                _MEAN: torch.zeros_like(parameter, memory_format=torch.preserve_format),
                _SQUARE: torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
        return self._state[parameter]
