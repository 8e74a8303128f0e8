"""Look at this machine before a run does: what is missing, wrong or in the way, and its cure.

python scripts/doctor.py
python scripts/doctor.py --recipe smollm2 --out runs/demo
python scripts/doctor.py --accelerate recipes/accelerate/ddp.yaml
python scripts/doctor.py --json

Ends with 0 where there is no error, with 1 where there is one; warnings do not count.
"""

import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent


def unable(why: str) -> None:
    """One line, where not even the doctor can be started."""
    there = (HOME / ".venv" / "bin" / "python").exists()
    cure = "make setup, then .venv/bin/python scripts/doctor.py"
    if there and Path(sys.prefix).resolve() != (HOME / ".venv").resolve():
        cure = ".venv/bin/python scripts/doctor.py (or make setup)"
    print(f"error: {why}; in {HOME} type: {cure}", file=sys.stderr)
    raise SystemExit(1)


def main() -> None:
    try:
        import tyro

        from align.doctor import run as doctor
        from align.doctor.asked import Asked
    except Exception as error:  # a broken package raises whatever it likes
        unable(f"{sys.executable} cannot import the project ({type(error).__name__}: {error})")
    if Path(doctor.__file__).resolve().parents[2] != HOME:
        unable(f"{doctor.__file__} is imported, which is not of this checkout")
    asked = tyro.cli(Asked, description=__doc__, config=(tyro.conf.FlagCreatePairsOff,))
    if not asked.seconds > 0:
        print(f"error: --seconds {asked.seconds}: it must be above 0", file=sys.stderr)
        raise SystemExit(2)
    if asked.recipe is not None:
        known(asked.recipe)
    raise SystemExit(doctor.run(asked))


def known(name: str) -> None:
    """End with 2 where there is no recipe of that name."""
    try:
        from align.recipe import RecipeError, load
    except ImportError:
        return  # the checks say why
    try:
        load(name)
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
