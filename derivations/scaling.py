"""Step time of data-parallel training, and what all-reduces cost, derived from their steps in sympy.

A message of x bytes takes α + x·β: latency, and seconds per byte. Ring: Patarasuk & Yuan 2009; halving and doubling:
Thakur, Rabenseifner & Gropp 2005. The time to add numbers is left out: GPUs add faster than links send.

    step = c·b + o + max(0, all-reduce(p, n) − φ·w·c·b)

p learners (no unit), g in each of m nodes; b images a learner and B of all of them (image) in a step; n bytes of
gradients (byte); α latency (s), β seconds per byte (s/byte), with _in inside a node and _out between nodes; c seconds
per image of forward and backward pass (s/image); o overhead of a step (s); w share of the backward pass in c (no
unit); φ share of the backward pass that hides communication (no unit), 0 for none and 1 for all of it.
"""

from __future__ import annotations

import sympy as sp

p, g, m = sp.symbols("p g m", integer=True, positive=True)
b, B, n = sp.symbols("b B n", positive=True)
alpha, beta = sp.symbols("alpha beta", positive=True)
alpha_in, beta_in, alpha_out, beta_out = sp.symbols(
    r"\alpha_{\mathrm{in}} \beta_{\mathrm{in}} \alpha_{\mathrm{out}} \beta_{\mathrm{out}}", positive=True
)
c = sp.Symbol("c", positive=True)
o, w, phi = sp.symbols("o w phi", nonnegative=True)
_i, _levels = sp.symbols("i L", integer=True, positive=True)
_total = sp.Symbol("T", positive=True)

# A layer's forward pass is one product, its backward pass two: gradients of its input and of its weights.
BACKWARD = sp.Rational(2, 3)

# Dimensions as powers of (s, byte, image).
UNITS: dict[sp.Symbol, tuple[int, int, int]] = {
    **{symbol: (0, 0, 0) for symbol in (p, g, m, w, phi)},
    **{symbol: (0, 0, 1) for symbol in (b, B)},
    n: (0, 1, 0),
    **{symbol: (1, 0, 0) for symbol in (alpha, alpha_in, alpha_out, o)},
    **{symbol: (1, -1, 0) for symbol in (beta, beta_in, beta_out)},
    c: (1, 0, -1),
}


def units(symbol: sp.Symbol) -> str:
    """The unit of a symbol, such as s·byte⁻¹; – for counts and shares. Raises KeyError for an unknown symbol."""
    powers = zip(("s", "byte", "image"), UNITS[symbol], strict=True)
    return "·".join(name + ("⁻¹" if power < 0 else "") for name, power in powers if power) or "–"


def reduce_scatter() -> sp.Sum:
    """Ring reduce-scatter, seconds: p − 1 steps, in each of which every learner sends a p-th to its neighbour."""
    return sp.Sum(alpha + n / p * beta, (_i, 1, p - 1))


def all_gather() -> sp.Sum:
    """Ring all-gather, seconds: the summed p-ths go round in p − 1 more steps."""
    return sp.Sum(alpha + n / p * beta, (_i, 1, p - 1))


def ring() -> sp.Expr:
    """2(p−1)α + 2(p−1)/p·nβ, in seconds: both sums evaluated."""
    total = sp.expand((reduce_scatter() + all_gather()).doit())
    return sp.collect(total, [alpha, beta], sp.factor)


def half_size() -> sp.Expr:
    """Bytes for which a ring's latency lasts as long as its transfer, so that it reaches half of its bandwidth."""
    (size,) = sp.solve(sp.Eq(ring().coeff(alpha) * alpha, ring().coeff(beta) * beta), n)
    return size


def tree() -> sp.Expr:
    """Reduction and broadcast of the whole message along a binary tree, not pipelined, seconds: 2·log₂p(α + nβ)."""
    return sp.factor((2 * sp.Sum(alpha + n * beta, (_i, 1, _levels))).doit()).subs(_levels, sp.log(p, 2))


def halving_doubling() -> sp.Expr:
    """Recursive halving, then doubling, for p a power of two, seconds: step i exchanges n/2^i bytes."""
    steps = (2 * sp.Sum(alpha + n / 2**_i * beta, (_i, 1, _levels))).doit()
    return sp.collect(sp.expand(steps).subs(2**-_levels, 1 / p).subs(_levels, sp.log(p, 2)), [alpha, beta], sp.factor)


def hierarchical() -> sp.Expr:
    """g learners in each of m nodes, seconds: reduce-scatter inside, a ring over the nodes on 1/g of the bytes,
    all-gather inside. The g rings between nodes run at once, so a link that they share has g times beta_out."""
    inside = ring().subs({p: g, alpha: alpha_in, beta: beta_in}, simultaneous=True)
    outside = ring().subs({p: m, n: n / g, alpha: alpha_out, beta: beta_out}, simultaneous=True)
    return inside + outside


def growth() -> dict[str, sp.Expr]:
    """How communication grows with p, no unit, where one cost dominates: a ring's bandwidth, its latency, or a tree."""
    return {
        "bandwidth": sp.factor(ring().coeff(beta) / n),
        "latency": ring().coeff(alpha),
        "tree": sp.simplify(tree() / (alpha + n * beta)),
    }


def exposed(communication: sp.Expr, images: sp.Expr = b) -> sp.Expr:
    """Seconds of ``communication`` that ``images`` a learner do not hide, where it outlasts them."""
    return communication - phi * w * c * images


def step(communication: sp.Expr | None = None, images: sp.Expr = b) -> sp.Expr:
    """Seconds of a step with ``images`` a learner; a ring unless another communication is given, in seconds."""
    return c * images + o + sp.Max(0, exposed(ring() if communication is None else communication, images))


def exposed_step(communication: sp.Expr | None = None, images: sp.Expr = b) -> sp.Expr:
    """`step` where communication outlasts what hides it, so that the maximum is its second argument."""
    return c * images + o + exposed(ring() if communication is None else communication, images)


def weak_efficiency(time: sp.Expr | None = None) -> sp.Expr:
    """Throughput of p learners over p times one's, each with b images: the step of one over the step of p."""
    return (c * b + o) / (exposed_step() if time is None else time)


def weak_speedup(time: sp.Expr | None = None) -> sp.Expr:
    """p times the weak efficiency."""
    return p * weak_efficiency(time)


def strong_speedup() -> sp.Expr:
    """Step of one learner with all B images over that of p learners with B/p each, communication exposed."""
    return (c * B + o) / exposed_step(images=B / p)


def strong_efficiency() -> sp.Expr:
    """Strong speed-up over p."""
    return strong_speedup() / p


def half_batch(communication: sp.Expr | None = None) -> sp.Expr:
    """Images a learner at which exposed communication is half of the step; with fewer it is more than half.

    Not positive where the overhead alone is longer than the all-reduce: then communication never takes half.
    """
    (solution,) = sp.solve(sp.Eq(exposed(_total), c * b + o), b)
    return solution.subs(_total, ring() if communication is None else communication)


def half_bandwidth() -> sp.Expr:
    """Link speed 1/β, byte/s, at which a ring's exposed communication is half of the step; slower ones take more.

    Not positive where latency alone takes more than half: then no link is fast enough.
    """
    (transfer,) = sp.solve(sp.Eq(exposed(_total + ring().coeff(alpha) * alpha), c * b + o), _total)
    return ring().coeff(beta) / transfer
