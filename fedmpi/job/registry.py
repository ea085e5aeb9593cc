"""The components of one kind, by name: a job picks one with its options; a wrong word gets the nearest right one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fedmpi import own
from fedmpi.flow import Refused
from fedmpi.job.component import Component
from fedmpi.job.imported import imported, is_own
from fedmpi.job.signature import Options, checked, options, taken
from fedmpi.job.words import JobError, article, because, nearest, shown, toml

Made = TypeVar("Made")


class Registry(dict[str, Callable[..., Made]]):
    """The components of one kind: a dict from the name of each to its factory.

    `field` is the kind's place in a job; `given` are the arguments filled in by a call of `choose`: all others are
    options.  `of` is the type of every factory's product.  `many`: a job lists any number of them.  `text`: a command
    line names them, not a job, and options may be words.
    """

    def __init__(
        self,
        field: str,
        factories: Mapping[str, Callable[..., Made]],
        given: tuple[str, ...] = (),
        *,
        of: Any = object,
        many: bool = False,
        text: bool = False,
    ) -> None:
        super().__init__(factories)
        self.field, self.given, self.of, self.many, self.text = field, given, of, many, text

    def find(self, name: str, field: str = "") -> Callable[..., Made]:
        """Return the factory of a name, or the user's own, `package.module:factory`.

        Raises JobError, which begins with `field` (the registry's where not given) and lists the names there are.
        """
        field = field or self.field
        if name in self:
            return self[name]
        if not is_own(name):
            known = f"{', '.join(self)}, or package.module:name{nearest(name, self)}"
            raise JobError(f"{field}: {shown(name)} given; there are {known}")
        return imported(name, field)

    def options(self, name: str) -> Options:
        """Return the options of a component: `{name: (type, default)}`, with `...` for one without a default."""
        return options(self.find(name), self.given)

    def choose(self, component: Component, field: str = "", /, **given: Any) -> Made:
        """Return the component of a name, made with its options and those `given` arguments it takes.

        Raises JobError, which begins with `field` (the registry's where not given), for an unknown name (listing the
        known ones), an unknown option (listing the options), a wrong type or value.
        """
        assert given.keys() <= {*self.given}
        field, name = field or self.field, component.name
        factory = self.find(name, field)
        allowed = options(factory, self.given)
        for option, value in component.options.items():
            if option not in allowed:
                known = ", ".join(allowed) or "none"
                instead = self.spelled(option, value) if field == self.field and not self.text else ""
                meant = f"; did you mean {instead}?" if instead else nearest(option, allowed)
                raise JobError(f"{field}.{option}: is not an option of {name}; it has {known}{meant}")
        arguments = checked(allowed, component.options, field, self.text) | taken(factory, given)
        try:
            product = factory(**arguments)
        except Refused:
            raise
        except (Exception, SystemExit) as error:
            reason = because(error) if own.place(error) is None else own.line(error)
            raise JobError(f"{field}: {shown(name, quotes=False)}: {reason}") from error
        if not isinstance(product, self.of):
            gave, wanted = (f"{article(kind.__name__)} {kind.__name__}" for kind in (type(product), self.of))
            raise JobError(f"{field}: {shown(name)} gave {gave}; it should be {wanted}")
        return product

    def spelled(self, name: str, value: Any = None) -> str:
        """Return a component as a job writes it, with the options in a table `value`; "" where it has no `name`."""
        if name not in self:
            return ""
        table = {key: inner for key, inner in value.items() if key != "name"} if isinstance(value, Mapping) else {}
        needed = {key: ... for key, (_, default) in self.options(name).items() if default is ... and key not in table}
        parts = [f"{key} = {'...' if inner is ... else toml(inner)}" for key, inner in {**table, **needed}.items()]
        return " ".join([f"[[{self.field}]]" if self.many else f"[{self.field}]", f'name = "{name}"', *parts])
