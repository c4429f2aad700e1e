#!/usr/bin/env bash
# Trains on a Cloud TPU slice: creates or reuses it, copies HEAD to every host, installs .[tpu] there, starts the run.
#
#   launch/tpu_vm.sh --name NAME --zone ZONE --type TYPE [--spot] [--version V] [--dry-run] -- ARGUMENTS OF cc_jax.main
#   launch/tpu_vm.sh --name NAME --zone ZONE --delete [--dry-run]
#
#   --name NAME        the slice: reused where it exists, created otherwise
#   --zone ZONE        its zone, for example us-west4-a
#   --type TYPE        its accelerator type, for example v5litepod-16, v6e-64, v5p-32, v4-32
#   --version VERSION  the runtime of a new slice; without it, the one for jax on this family of types:
#                      v2-alpha-tpuv5-lite (v5litepod), v2-alpha-tpuv6e (v6e), v2-alpha-tpuv5 (v5p) or
#                      tpu-ubuntu2204-base (v4)
#   --project PROJECT  without it, the project of gcloud's own configuration
#   --spot             a new slice is a spot one: cheaper, and may be taken away at any time
#   --delete           deletes the slice (gcloud asks first) and does nothing else
#   --dry-run          prints the commands, quoted for bash, and runs none
#   --help             prints this
#
# The run is detached on every host, so a lost connection does not end it. This script then follows worker 0's log and
# exits with its status; Ctrl-C ends only the following, and the last command printed takes it up again.
# On the hosts: ~/cc_jax/train.log, train.pid (the process group), train.exit (the status, once it ended). Stop a run:
#   gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command='kill -- -$(cat cc_jax/train.pid)'
# Hosts share no disk, so --workdir belongs in a bucket; then the same command resumes a run that was cut off, on the
# same slice or a new one.
#
#   launch/tpu_vm.sh --name cc --zone us-west4-a --type v5litepod-16 --spot -- \
#     --config configs/siglip_b16_cc.py --workdir gs://BUCKET/runs/b16 --config.optim.lr=5e-4

set -euo pipefail

fail() { printf 'tpu_vm.sh: %s\n' "$1" >&2; exit 2; }

name="" zone="" type="" version="" project="" spot=false delete=false dry_run=false
while (($#)); do
  case $1 in
    --name=* | --zone=* | --type=* | --version=* | --project=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --name | --zone | --type | --version | --project)
      [[ -n ${2-} && ${2-} != --* ]] || fail "$1 needs a value, found '${2-}' (see --help)."
      printf -v "${1#--}" '%s' "$2"; shift 2 ;;
    --spot) spot=true; shift ;;
    --delete) delete=true; shift ;;
    --dry-run) dry_run=true; shift ;;
    --help) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
    --) shift; break ;;
    *) fail "unknown option '$1'; arguments of cc_jax.main follow a --, and before it these are allowed:
  --name, --zone, --type, --version, --project, --spot, --delete, --dry-run, --help" ;;
  esac
done

[[ -n $name ]] || fail "--name is missing: the slice to create or reuse, for example --name cc."
[[ $name =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || fail "--name is '$name'; allowed: a-z, 0-9 and inner -, a letter first."
[[ -n $zone ]] || fail "--zone is missing: where the slice is, for example --zone us-west4-a."
if $delete; then
  (($# == 0)) || fail "--delete starts no run, but arguments for one follow the --: '$1'; give one or the other."
else
  [[ -n $type ]] || fail "--type is missing: the accelerator type, for example --type v5litepod-16."
  (($#)) || fail "nothing to run; give the arguments of cc_jax.main after a --, for example
  -- --config configs/siglip_b16_cc.py --workdir gs://BUCKET/run"
fi
if ! $delete && [[ -z $version ]]; then
  case $type in
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v4-*) version=tpu-ubuntu2204-base ;;
    *) fail "--type is '$type'; known: v5litepod-N, v6e-N, v5p-N, v4-N; for others give --version." ;;
  esac
fi
$dry_run || command -v gcloud > /dev/null ||
  fail "gcloud is not on PATH; install it: https://cloud.google.com/sdk/docs/install"

cd "$(dirname "${BASH_SOURCE[0]}")/.."

where=(--zone="$zone")
if [[ -n $project ]]; then where+=(--project="$project"); fi
tpu_vm=(gcloud compute tpus tpu-vm)
describe=("${tpu_vm[@]}" describe "$name" "${where[@]}" --format='value(state,acceleratorType)')
create=("${tpu_vm[@]}" create "$name" "${where[@]}" --accelerator-type="$type" --version="$version")
if $spot; then create+=(--spot); fi

show() { printf '%q' "$1"; printf ' %q' "${@:2}"; printf '\n'; }  # a command as bash would read it
run() { show "$@"; $dry_run || "$@"; }
on_hosts() { run "${tpu_vm[@]}" ssh "$name" "${where[@]}" --worker="$1" --command="$2"; }

create_or_reuse() {
  local found state found_type
  if $dry_run; then
    show "${describe[@]}"
    printf '# only where there is no such slice:\n'
    show "${create[@]}"
    return
  fi
  show "${describe[@]}"
  if ! found=$("${describe[@]}" 2> /dev/null); then run "${create[@]}"; return; fi
  read -r state found_type <<< "$found"
  [[ $found_type == "$type" ]] ||
    fail "$name is a $found_type, --type asks for $type; give --type $found_type, another --name, or --delete it first."
  [[ $state == READY ]] ||
    fail "$name is $state, only a READY slice can be used; wait until it is, or --delete it and run this again."
}

copy_head() {
  local archive=build/$name.tar.gz
  if ! $dry_run && [[ -n $(git status --porcelain) ]]; then
    printf 'tpu_vm.sh: the working tree differs from HEAD; only what is committed is copied.\n' >&2
  fi
  run mkdir -p build
  run git archive --format=tar.gz --output="$archive" HEAD
  run "${tpu_vm[@]}" scp "$archive" "$name:cc_jax.tar.gz" "${where[@]}" --worker=all
}

# The scripts below run on the hosts, so nothing in them expands here.
# shellcheck disable=SC2016
{
# A written status means that the run ended, whoever has its process id by now.
running='[ ! -s train.exit ] && [ -s train.pid ] && kill -0 "$(cat train.pid)" 2> /dev/null'

# The images' python3 is 3.10, too old, so uv brings its own. Modules that HEAD no longer has must not linger.
install='set -e
mkdir -p cc_jax
cd cc_jax
if '$running'; then
  echo "$(hostname): a run is in progress; let it end, or stop it (see launch/tpu_vm.sh --help)." >&2
  exit 1
fi
rm -rf cc_jax configs
tar -xzf ../cc_jax.tar.gz
python3 -m pip install --quiet --user uv
[ -x .venv/bin/python ] || python3 -m uv venv --quiet --python 3.11 .venv
python3 -m uv pip install --quiet --python .venv/bin/python -e ".[tpu]"'

# gcloud repeats a command whose connection broke, so a second start must do nothing. The trap keeps the outer bash
# until a trainer that was told to stop has ended.
start='cd cc_jax || exit
if '$running'; then exit; fi
rm -f train.exit
setsid nohup bash -c '\''trap : TERM; "$@"; echo $? > train.exit'\'' train'

follow='cd cc_jax || exit
while '$running'; do sleep 0.2; done &
tail --pid=$! -s 0.2 -n +1 -F train.log
exit "$(cat train.exit || echo 1)"'
}

if $delete; then
  run "${tpu_vm[@]}" delete "$name" "${where[@]}"
  exit
fi
create_or_reuse
copy_head
on_hosts all "$install"
train=$(printf ' %q' .venv/bin/python -u -m cc_jax.main --distributed "$@")
on_hosts all "$start$train > train.log 2>&1 < /dev/null &
echo \$! > train.pid"
on_hosts 0 "$follow"
