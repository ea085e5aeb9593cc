"""torch.optim's element-wise optimisers over one flat vector, by name, for clients and for the server."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fedmpi import job, own

Kind = Callable[..., torch.optim.Optimizer]  # a class of torch.optim


class Optimizer:
    """One of torch's optimisers over a flat vector: `step(gradient)` changes `values` in place.

    `plain` is SGD without momentum or decay, for which a caller may write its own line instead: torch's own object is
    made when it is first asked for, since making one takes a second of imports (torch's compiler).
    """

    def __init__(self, kind: Kind, options: dict[str, Any], values: Tensor, lr: float) -> None:
        self.plain = _plain(kind, options)
        self.values = nn.Parameter(values)
        self.lr, self.kind, self.options = lr, kind, options

    @cached_property
    def torch(self) -> Any:
        """Return torch's own optimiser, over the same memory."""
        plain = {"foreach": False} if "foreach" in inspect.signature(self.kind).parameters else {}
        return self.kind([self.values], lr=self.lr, **plain, **self.options)

    def step(self, gradient: Tensor) -> None:
        self.values.grad = gradient
        self.torch.step()

    def restart(self, lr: float) -> None:
        """Forget earlier steps and begin afresh at this learning rate, as the next client does."""
        self.pace(lr)
        if "torch" in self.__dict__:
            self.torch.state.clear()

    def pace(self, lr: float) -> None:
        """Go on at this learning rate."""
        self.lr = lr
        if "torch" in self.__dict__:
            self.torch.param_groups[0]["lr"] = lr

    def reach(self, steps: int) -> float:
        """Return the length of so many steps from a fresh start, in learning rates, along a constant gradient of 1.

        SGD's momentum counts (Wang et al. 2020, "Tackling the Objective Inconsistency Problem", section 4: the 1-norm
        of the accumulation vector); for optimisers with steps that are no sums of gradients it is the number of steps.
        """
        momentum = self.options.get("momentum", 0.0) if self.kind is torch.optim.SGD else 0.0
        return float(steps) if not momentum else _reach(steps, momentum, self.options)

    def state(self) -> dict[str, Tensor]:
        """Return torch's tensors by name, for the next step to be the same after a resume."""
        tensors = {} if self.plain else self.torch.state.get(self.values, {})
        return {name: torch.as_tensor(value) for name, value in tensors.items() if value is not None}

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, value in state.items():
            self.torch.state[self.values][name] = value.clone()


def _plain(kind: Kind, options: dict[str, Any]) -> bool:
    return kind is torch.optim.SGD and not any(options.values())


def _reach(steps: int, momentum: float, options: Mapping[str, Any]) -> float:
    velocity = total = 0.0
    for step in range(steps):
        velocity = momentum * velocity + (1.0 - options["dampening"] if step else 1.0)
        total += 1.0 + momentum * velocity if options["nesterov"] else velocity
    return total


Maker = Callable[[Tensor, float], Optimizer]


def _of(kind: Kind, **options: Any) -> Maker:
    # Made once on nothing, so that a wrong value is refused when the job is read.
    if not _plain(kind, options):
        kind([nn.Parameter(torch.zeros(1))], lr=1.0, **options)
    return lambda values, lr: Optimizer(kind, options, values, lr)


def sgd(momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False) -> Maker:
    """Stochastic gradient descent, with momentum (Sutskever et al. 2013).

    `momentum` is the part of the last step's velocity left in the next; `dampening` is the part of a gradient left out
    of it.  `weight_decay` times the values is added to the gradient. `nesterov` looks one step ahead.
    """
    return _of(torch.optim.SGD, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov)


def adam(
    betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0, amsgrad: bool = False
) -> Maker:
    """Adam (Kingma and Ba 2015).

    `betas` are the decays of the running means of gradients and of their squares, from 0 below 1.  `eps` keeps the
    divisor from 0.  `weight_decay` times the values is added to the gradient.  `amsgrad` divides by the largest mean of
    squares so far.
    """
    return _of(torch.optim.Adam, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)


def adamw(
    betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01, amsgrad: bool = False
) -> Maker:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    `betas` are the decays of the running means of gradients and of their squares, from 0 below 1.  `eps` keeps the
    divisor from 0.  `weight_decay` times the learning rate is the part of the values taken off in every step.
    `amsgrad` divides by the largest mean of squares so far.
    """
    return _of(torch.optim.AdamW, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)


def rmsprop(
    alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False
) -> Maker:
    """RMSprop (Hinton 2012, lecture 6e).

    `alpha` is the decay of the running mean of squared gradients.  `eps` keeps the divisor from 0.  `weight_decay`
    times the values is added to the gradient.  `momentum` is the part of the last step's velocity left in the next.
    `centered` takes the square of the mean gradient off the mean square.
    """
    return _of(
        torch.optim.RMSprop, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered
    )


def adagrad(
    lr_decay: float = 0.0, weight_decay: float = 0.0, initial_accumulator_value: float = 0.0, eps: float = 1e-10
) -> Maker:
    """AdaGrad (Duchi et al. 2011).

    `lr_decay` divides the learning rate by 1 + `lr_decay` * steps.  `weight_decay` times the values is added to the
    gradient.  `initial_accumulator_value` is the start of the sum of squares.  `eps` keeps the divisor from 0.
    """
    return _of(
        torch.optim.Adagrad,
        lr_decay=lr_decay,
        weight_decay=weight_decay,
        initial_accumulator_value=initial_accumulator_value,
        eps=eps,
    )


def adadelta(rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0) -> Maker:
    """ADADELTA (Zeiler 2012).

    `rho` is the decay of the running means of squares.  `eps` keeps the divisor from 0.  `weight_decay` times the
    values is added to the gradient.
    """
    return _of(torch.optim.Adadelta, rho=rho, eps=eps, weight_decay=weight_decay)


def adamax(betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0) -> Maker:
    """Adam by the infinity norm (Kingma and Ba 2015, section 7.1).

    `betas` are the decays of the running mean of gradients and of their largest size, from 0 below 1.  `eps` keeps the
    divisor from 0.  `weight_decay` times the values is added to the gradient.
    """
    return _of(torch.optim.Adamax, betas=betas, eps=eps, weight_decay=weight_decay)


def nadam(
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 0.004,
) -> Maker:
    """Adam with Nesterov momentum (Dozat 2016).

    `betas` are the decays of the running means of gradients and of their squares, from 0 below 1.  `eps` keeps the
    divisor from 0.  `weight_decay` times the values is added to the gradient.  `momentum_decay` is the rate at which
    the first decay nears its full value.
    """
    return _of(torch.optim.NAdam, betas=betas, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)


def radam(betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0) -> Maker:
    """Rectified Adam (Liu et al. 2020).

    `betas` are the decays of the running means of gradients and of their squares, from 0 below 1.  `eps` keeps the
    divisor from 0.  `weight_decay` times the values is added to the gradient.
    """
    return _of(torch.optim.RAdam, betas=betas, eps=eps, weight_decay=weight_decay)


def asgd(lambd: float = 1e-4, alpha: float = 0.75, t0: float = 1e6, weight_decay: float = 0.0) -> Maker:
    """Averaged SGD (Polyak and Juditsky 1992).

    `lambd` is the decay of the values in units of the learning rate, `alpha` the power of the learning rate's own
    decay.  `t0` is the step at which averaging begins.  `weight_decay` times the values is added to the gradient.
    """
    return _of(torch.optim.ASGD, lambd=lambd, alpha=alpha, t0=t0, weight_decay=weight_decay)


def rprop(etas: tuple[float, float] = (0.5, 1.2), step_sizes: tuple[float, float] = (1e-6, 50.0)) -> Maker:
    """Resilient backpropagation (Riedmiller and Braun 1993).

    `etas` are the factors of a step's size after a change of sign and after none.  `step_sizes` are its least and its
    largest size.
    """
    return _of(torch.optim.Rprop, etas=etas, step_sizes=step_sizes)


# Left out: LBFGS (needs a closure), Muon (needs matrices), Adafactor (looks at a tensor's shape), SparseAdam.
OPTIMIZERS: job.Registry[Maker] = job.Registry(
    "local.optimizer",
    {
        "sgd": sgd,
        "adam": adam,
        "adamw": adamw,
        "rmsprop": rmsprop,
        "adagrad": adagrad,
        "adadelta": adadelta,
        "adamax": adamax,
        "nadam": nadam,
        "radam": radam,
        "asgd": asgd,
        "rprop": rprop,
    },
    of=Callable,
)


# Why each cannot be: a job's optimiser sees one flat vector, and its gradient.
UNFIT = {
    "LBFGS": "it asks for the loss again and again",
    "Muon": "it works on matrices",
    "Adafactor": "it works on matrices",
    "SparseAdam": "it takes sparse gradients alone",
}


def optimizer(component: job.Component, field: str) -> Maker:
    """Return the maker of a job's optimiser; JobError for an unknown name, option or value.

    One's own is `package.module:name`: a class of torch.optim, or like one, with the same step for every value; or a
    factory of a `Maker`.
    """
    if ":" in component.name:
        kind = OPTIMIZERS.find(component.name, field)
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer):
            unfit = next((UNFIT[base.__name__] for base in kind.__mro__ if base.__name__ in UNFIT), None)
            if unfit:
                raise job.JobError(f"{field}: {component.name} given, which cannot be: {unfit}; try adam or sgd")
            return _torch_s(kind, component, field)
    maker = OPTIMIZERS.choose(component, field)
    if ":" in component.name:
        wanted = "a class of torch.optim, or a factory of what makes a fedmpi.optim.Optimizer of (values, lr)"
        try:
            example: object = maker(torch.zeros(1), 1.0)
        except Exception as error:
            raise job.JobError(f"{field}: {component.name}: {own.line(error)}; it should be {wanted}") from error
        if not isinstance(example, Optimizer):
            raise job.JobError(f"{field}: {component.name} makes a {type(example).__name__}; it should be {wanted}")
    return maker


def _torch_s(kind: Kind, component: job.Component, field: str) -> Maker:
    """Return the maker of a class like torch's; its options are `__init__`'s but for those filled in here."""

    def factory(**options: Any) -> Maker:
        return _of(kind, **options)

    given = inspect.signature(kind).parameters
    filled = ("params", "lr", "foreach", "fused", "capturable", "differentiable", "maximize")
    factory.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # a function may carry it
        [
            one.replace(kind=one.KEYWORD_ONLY)
            for one in given.values()
            if one.name not in filled and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        ]
    )
    return job.Registry(field, {component.name: factory}).choose(component)
