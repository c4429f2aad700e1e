#!/usr/bin/env bash
# Trains on this machine: `make install` makes or reuses .venv, then cc_jax.main runs from the repository root.
#
#   launch/local.sh [--extra cuda|tpu] [--dry-run] [--] ARGUMENTS OF cc_jax.main
#
#   --extra cuda|tpu   also installs jax for this accelerator; without it, jax for CPUs
#   --dry-run          prints the commands, quoted for bash, and runs none
#   --help             prints this
#
# The first argument that is not one of these begins those of cc_jax.main. Paths count from the repository root.
#
#   launch/local.sh --config configs/shapes_cc.py:runlocal --workdir runs/try
#   launch/local.sh --extra cuda -- --config configs/siglip_b16_cc.py:data=datasets/cc12m --workdir runs/b16 --config.optim.lr=5e-4

set -euo pipefail

fail() { printf 'local.sh: %s\n' "$1" >&2; exit 2; }

extra="" dry_run=false
while (($#)); do
  case $1 in
    --extra)
      [[ ${2-} == cuda || ${2-} == tpu ]] || fail "--extra is '${2-}'; allowed: cuda, tpu."
      extra=$2; shift 2 ;;
    --extra=*) set -- --extra "${1#*=}" "${@:2}" ;;
    --dry-run) dry_run=true; shift ;;
    --help) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
    --) shift; break ;;
    *) break ;;
  esac
done
(($#)) || fail "nothing to run; give the arguments of cc_jax.main, for example
  --config configs/shapes_cc.py --workdir runs/shapes"

cd "$(dirname "${BASH_SOURCE[0]}")/.."

run() {  # shows a command as bash would read it, then runs it
  printf '%q' "$1"; printf ' %q' "${@:2}"; printf '\n'
  $dry_run || "$@"
}

run make install
if [[ -n $extra ]]; then run .venv/bin/pip install --quiet -e ".[$extra]"; fi
run exec .venv/bin/python -m cc_jax.main "$@"  # exec: signals go to the trainer itself
