"""A convolution together with what is proved about it, so that both always grow by the same steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ._affine import AffineConv
from ._certificate import Certificate, parallel_certificate, series_certificate

__all__ = ["MergedConv", "merge_chain"]


@dataclass(frozen=True, eq=False)
class MergedConv:
    """One convolution that stands for a block, with its certificate.

    ``sizes``: the spatial sizes of the block's input where they are known; rings are exact then and bounds
    for every size otherwise.  A skip inside a block is ``branch.plus(MergedConv.of(AffineConv.dirac(…)))``
    on the branch's own input, and the result follows what comes before it with ``then``.
    """

    conv: AffineConv
    certificate: Certificate
    sizes: tuple[int, ...] | None = None

    @classmethod
    def of(cls, conv: AffineConv, sizes: Sequence[int] | None = None) -> MergedConv:
        """A convolution of the network as it is: exact.

        Raises:
            ValueError: ``sizes`` has another number of dimensions.
        """
        if sizes is not None and len(sizes) != conv.geometry.ndim:
            raise ValueError(f"{conv.geometry.ndim} spatial sizes are needed, got {tuple(sizes)}")
        return cls(conv, Certificate.exact(conv.geometry.ndim), None if sizes is None else tuple(sizes))

    def then(self, other: MergedConv) -> MergedConv:
        """``other`` after ``self``.  Sizes that ``other`` knows must be what ``self`` puts out.

        Raises:
            ValueError: channels, dimensions or sizes do not match.
        """
        geometry = self.conv.geometry
        if self.sizes is not None and other.sizes not in (None, geometry.out_size(self.sizes)):
            raise ValueError(
                f"outputs of {geometry.out_size(self.sizes)} do not feed inputs of {other.sizes}"
            )
        certificate = series_certificate(
            self.certificate,
            geometry,
            bool(self.conv.bias.any()),
            other.certificate,
            other.conv.geometry,
            self.sizes,
        )
        return MergedConv(self.conv.then(other.conv), certificate, self.sizes)

    def plus(self, other: MergedConv) -> MergedConv:
        """The sum of two branches with one input.

        Raises:
            ValueError: channels, strides or sizes do not match.
        """
        if None not in (self.sizes, other.sizes) and self.sizes != other.sizes:
            raise ValueError(f"branches with inputs of {self.sizes} and {other.sizes} do not add")
        certificate = parallel_certificate(self.certificate, other.certificate)
        return MergedConv(self.conv.plus(other.conv), certificate, self.sizes or other.sizes)

    def beside(self, other: MergedConv) -> MergedConv:
        """Two branches with one input, their output channels one after the other.

        Raises:
            ValueError: input channels, strides or sizes do not match.
        """
        if None not in (self.sizes, other.sizes) and self.sizes != other.sizes:
            raise ValueError(f"branches with inputs of {self.sizes} and {other.sizes} cannot stand side by side")
        certificate = parallel_certificate(self.certificate, other.certificate)
        return MergedConv(self.conv.beside(other.conv), certificate, self.sizes or other.sizes)

    def lossy(self, reason: str) -> MergedConv:
        """The same convolution, of which the caller says that an activation or a convolution was removed."""
        return replace(self, certificate=self.certificate.lossy(reason))


def merge_chain(convs: Sequence[AffineConv], sizes: Sequence[int] | None = None) -> MergedConv:
    """A chain of convolutions, first to last, as one; ``sizes`` are the spatial sizes of its input if known.

    Raises:
        ValueError: ``convs`` is empty, or neighbours do not match.
    """
    if not convs:
        raise ValueError("a chain needs at least one convolution")
    merged = MergedConv.of(convs[0], sizes)
    for conv in convs[1:]:
        merged = merged.then(MergedConv.of(conv))
    return merged
