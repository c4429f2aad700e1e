"""What a compiled program moves, read off its HLO text: between chips, and from and to their main memory.

XLA's own `cost_analysis()` counts the body of a loop once. Here it counts as often as the loop runs.
"""
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

# The share of its operands' bytes that a chip of a group of n sends.
SENT = {
    "all-gather": lambda n: n - 1, "all-reduce": lambda n: 2 * (n - 1) / n, "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n, "ragged-all-to-all": lambda n: (n - 1) / n, "collective-permute": lambda n: 1,
    "collective-broadcast": lambda n: 1,
}
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*)$")
ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](?:\{([^{}]*)\})?")
CALLS = re.compile(r"\b(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.-]+)")
BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
# What moves nothing: names for what is there, and the ends of what has a beginning.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id", "iota",
        "while", "conditional", "call", "opt-barrier", "async-start", "async-update", "async-done"}


class Instruction(NamedTuple):
    """`type` and `rest` are text: its result's type; its operands and all that follows."""
    name: str
    type: str
    opcode: str
    operands: list[str]
    rest: str
    root: bool


Computation = dict[str, Instruction]        # by name


class Collective(NamedTuple):
    """Of one kind: how often a step does it and how many bytes a chip then sends; of both, what is synchronous."""
    times: int = 0
    synchronous: int = 0
    sent: float = 0.0
    sent_synchronous: float = 0.0


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """(the computations by name, the name of the one that is the program). Raises ValueError for text without one."""
    computations, entry, here = {}, None, None
    for line in text.splitlines():
        if head := COMPUTATION.match(line):
            here = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif here is not None and (found := INSTRUCTION.match(line)):
            instruction = read(found[1], found[2], line.lstrip().startswith("ROOT"))
            here[instruction.name] = instruction
    if entry is None:
        raise ValueError("this is no HLO text: it has no ENTRY computation.")
    return computations, entry


def read(name: str, text: str, root: bool) -> Instruction:
    """The instruction `name = text`."""
    end = closing(text, 0) if text.startswith("(") else text.index(" ")
    opcode, _, _ = text[end:].lstrip().partition("(")
    start = text.index("(", end)
    close = closing(text, start)
    return Instruction(name, text[:end], opcode, re.findall(r"%([\w.-]+)", text[start:close]), text[start + 1:], root)


def closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` has closed."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place + 1
    return len(text)


def size(array_type: str, main_memory: bool = False) -> int:
    """The bytes of a type's arrays; with `main_memory`, only of those that don't live on the chip, in a space S(1), ..."""
    total = 0
    for dtype, dims, layout in ARRAY.findall(array_type):
        bits = re.search(r"\d+", dtype)
        width = 8 if dtype in ("pred", "token") or bits is None else int(bits[0])
        if not (main_memory and re.search(r"S\([1-9]", layout)):
            total += math.prod(int(n) for n in dims.split(",") if n) * width / 8
    return int(total)


def executed(computations: Mapping[str, Computation], name: str, times: int = 1) -> Iterator[tuple[Instruction, str, int]]:
    """(instruction, its computation, how often it runs) of the computation and all that it runs, inside fusions too."""
    for instruction in computations[name].values():
        yield instruction, name, times
        inner = CALLS.findall(instruction.rest)
        for branches in BRANCHES.findall(instruction.rest):
            inner += re.findall(r"%?([\w.-]+)", branches)
        often = times * (trips(instruction, computations) if instruction.opcode == "while" else 1)
        for called in inner:
            yield from executed(computations, called, often)


def trips(loop: Instruction, computations: Mapping[str, Computation]) -> int:
    """How often a loop runs: as the compiler noted, else the bound that its counter is compared with."""
    if known := re.search(r'"?known_trip_count"?[=:]\{"?n"?[=:]"?(\d+)', loop.rest):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.-]+)", loop.rest)[1]
    bounds = [int(bound[1]) for instruction, *_ in executed(computations, condition) if instruction.opcode == "constant"
              for bound in [re.match(r"(\d+)\)", instruction.rest)] if bound]
    return max(bounds, default=1)


def group_size(instruction: Instruction, devices: int) -> int:
    """How many devices a collective is among."""
    rest = instruction.rest
    if axes := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", rest):
        sizes = {name: int(count) for name, count in re.findall(r"'([^']+)'=(\d+)", axes[1])}
        return math.prod(sizes[name] for name in re.findall(r"'([^']+)'", axes[2]))
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(listed[1].split(","))
    if counted := re.search(r"replica_groups=\[(\d+),(\d+)\]", rest):
        return int(counted[2])
    return devices


def collectives(text: str, devices: int) -> dict[str, Collective]:
    """Each kind of collective of a program over so many devices."""
    computations, entry = parse(text)
    found: dict[str, Collective] = {}
    overlapped = {called for computation in computations.values() for instruction in computation.values()
                  if instruction.opcode == "async-start" or "async" in instruction.name
                  for called in CALLS.findall(instruction.rest)}
    for instruction, where, times in executed(computations, entry):
        kind = instruction.opcode.removesuffix("-start")
        if kind not in SENT:
            continue
        of_operands = sum(size(computations[where][name].type) for name in instruction.operands)
        sent = times * of_operands * SENT[kind](group_size(instruction, devices))
        waits = kind == instruction.opcode and where not in overlapped
        new = (times, waits * times, sent, waits * sent)
        found[kind] = Collective(*map(sum, zip(found.get(kind, Collective()), new, strict=True)))
    return found


def traffic(text: str) -> float:
    """Bytes that a step reads from and writes to main memory, fusions taken as the compiler made them."""
    computations, entry = parse(text)
    fused = {called for computation in computations.values() for instruction in computation.values()
             if instruction.opcode != "while" for called in CALLS.findall(instruction.rest)
             if instruction.opcode not in ("call", "conditional")}
    return sum(times * moved(instruction, computations[where], computations)
               for instruction, where, times in executed(computations, entry) if where not in fused)


def moved(instruction: Instruction, here: Computation, computations: Mapping[str, Computation]) -> int:
    """The main memory's bytes that one instruction reads and writes."""
    opcode = instruction.opcode
    if opcode in FREE or opcode.endswith("-done") or "AllocateBuffer" in instruction.rest:
        return 0
    types = [here[name].type for name in instruction.operands if name in here]
    if opcode in ("copy-start", "slice-start"):
        destination = ARRAY.findall(instruction.type)[0 if opcode == "copy-start" else 1]
        target = f"{destination[0]}[{destination[1]}]"
        inside = re.search(r"S\([1-9]", destination[2])
        read_whole = size(types[0], True) if opcode == "copy-start" else size(target) * (size(types[0], True) > 0)
        return read_whole + (0 if inside else size(target))
    if opcode == "dynamic-slice" or opcode == "slice":
        return size(instruction.type, True) + size(instruction.type) * (size(types[0], True) > 0)
    if opcode == "dynamic-update-slice":
        return 2 * size(types[1]) if size(types[0], True) else size(types[1], True)
    if opcode == "fusion":
        called = computations[CALLS.findall(instruction.rest)[0]]
        return fused_reads(called, types, computations) + fused_writes(called, instruction.type)
    if opcode.endswith("-start"):       # a collective: its result's type repeats its operands'
        return 2 * sum(size(of_operand, True) for of_operand in types)
    return size(instruction.type, True) + sum(size(of_operand, True) for of_operand in types)


def fused_reads(called: Computation, types: list[str], computations: Mapping[str, Computation]) -> int:
    """What a fusion reads: of an operand that it only takes slices of, those; of one it only writes into, nothing."""
    return sum(size_used(called, parameter.name, size(types[number]), computations) for number, parameter
               in parameters(called).items() if size(types[number], True))


def parameters(called: Computation) -> dict[int, Instruction]:
    """A computation's parameters by number."""
    return {int(x.rest.partition(")")[0]): x for x in called.values() if x.opcode == "parameter"}


def size_used(called: Computation, name: str, whole: int, computations: Mapping[str, Computation]) -> int:
    """How many of the `whole` bytes of a value its users in a fusion, and in the fusions in it, take."""
    total = 0
    for user in (x for x in called.values() if name in x.operands):
        place = user.operands.index(name)
        if user.opcode == "dynamic-slice" and place == 0:
            total += size(user.type)
        elif user.opcode == "bitcast":
            total += size_used(called, user.name, whole, computations)
        elif user.opcode == "fusion":
            inner = computations[CALLS.findall(user.rest)[0]]
            total += size_used(inner, parameters(inner)[place].name, whole, computations)
        elif not (user.opcode == "dynamic-update-slice" and place == 0):
            return whole
    return min(total, whole)


def fused_writes(called: Computation, result: str) -> int:
    """What a fusion writes: its result, or of one that is written into only what is new."""
    root = next(x for x in called.values() if x.root)
    parts = [called[name] for name in root.operands] if root.opcode == "tuple" else [root]
    arrays = [f"{dtype}[{dims}]{{{layout}}}" for dtype, dims, layout in ARRAY.findall(result)]
    total = 0
    for part, array in zip(parts, arrays, strict=False):
        if part.opcode == "dynamic-update-slice" and size(array, True):
            total += size(called[part.operands[1]].type)
        else:
            total += size(array, True)
    return total
