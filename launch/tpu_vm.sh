#!/usr/bin/env bash
# Trains on a Cloud TPU slice: queues for it or reuses it, copies HEAD to every host, installs .[tpu], starts the run.
#
#   launch/tpu_vm.sh --name NAME --zone ZONE --type TYPE [--spot] [--resume] [--dry-run] -- ARGUMENTS OF cc_jax.main
#   launch/tpu_vm.sh --name NAME --zone ZONE --delete [--dry-run]
#
#   --name NAME        the slice and its queued resource: reused where it exists, asked for otherwise, and waited for
#   --zone ZONE        its zone, for example us-west4-a
#   --type TYPE        its accelerator type, for example v5litepod-16, v6e-64, v5p-32, v4-32
#   --version VERSION  the runtime of a new slice; without it, the one for jax on this family of types:
#                      v2-alpha-tpuv5-lite (v5litepod), v2-alpha-tpuv6e (v6e), v2-alpha-tpuv5 (v5p) or
#                      tpu-ubuntu2204-base (v4)
#   --project PROJECT  without it, the project of gcloud's own configuration
#   --spot             a new slice is a spot one: cheaper, and may be taken away at any time
#   --resume           where the slice was taken away, deletes what is left of it, queues for another, and goes on
#   --delete           deletes the slice and its queued resource (gcloud asks first) and does nothing else
#   --dry-run          prints the commands, quoted for bash, and runs none
#   --help             prints this
#
# The run is detached on every host, so a lost connection does not end it. This script then follows worker 0's log and
# exits with its status, 143 where the run was told to stop and saved; Ctrl-C ends only the following, and the last
# command printed takes it up again.
# On the hosts: ~/cc_jax/train.log, train.pid (the process group), train.exit (the status, once it ended). Stop a run:
#   gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command='kill -- -$(cat cc_jax/train.pid)'
# Hosts share no disk, so --workdir belongs in a bucket; then the same command resumes a run that was cut off, on the
# same slice or a new one. With --resume it is run again by itself, as long as this script runs.
#
#   launch/tpu_vm.sh --name cc --zone us-west4-a --type v5litepod-16 --spot --resume -- \
#     --config configs/siglip_b16_cc.py --workdir gs://BUCKET/runs/b16 --config.optim.lr=5e-4

set -euo pipefail

fail() { printf 'tpu_vm.sh: %s\n' "$1" >&2; exit 2; }

name="" zone="" type="" version="" project="" spot=false resume=false delete=false dry_run=false
while (($#)); do
  case $1 in
    --name=* | --zone=* | --type=* | --version=* | --project=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --name | --zone | --type | --version | --project)
      [[ -n ${2-} && ${2-} != --* ]] || fail "$1 needs a value, found '${2-}' (see --help)."
      printf -v "${1#--}" '%s' "$2"; shift 2 ;;
    --spot) spot=true; shift ;;
    --resume) resume=true; shift ;;
    --delete) delete=true; shift ;;
    --dry-run) dry_run=true; shift ;;
    --help) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
    --) shift; break ;;
    *) fail "unknown option '$1'; arguments of cc_jax.main follow a --, and before it these are allowed:
  --name, --zone, --type, --version, --project, --spot, --resume, --delete, --dry-run, --help" ;;
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
queued=(gcloud compute tpus queued-resources)
describe=("${queued[@]}" describe "$name" "${where[@]}"
  --format='value(state.state,tpu.nodeSpec[0].node.acceleratorType)')
create=("${queued[@]}" create "$name" "${where[@]}" --node-id="$name" --accelerator-type="$type"
  --runtime-version="$version")
if $spot; then create+=(--spot); fi
delete_both=("${queued[@]}" delete "$name" "${where[@]}" --force)  # --force: the slice too

show() { printf '%q' "$1"; printf ' %q' "${@:2}"; printf '\n'; }  # a command as bash would read it
run() { show "$@"; $dry_run || "$@"; }
on_hosts() { run "${tpu_vm[@]}" ssh "$name" "${where[@]}" --worker="$1" --command="$2"; }

look() { found=$("${describe[@]}") && read -r state found_type <<< "$found"; }

create_or_reuse() {
  local found state="" found_type said=""
  show "${describe[@]}"
  if $dry_run; then
    printf '# only where there is no such slice; then until it is ACTIVE, describe again:\n'
    show "${create[@]}"
    return
  fi
  look 2> /dev/null || run "${create[@]}"
  while true; do
    if look; then
      [[ $found_type == "$type" ]] ||
        fail "$name is a $found_type, --type asks for $type; give --type $found_type, another --name, or --delete it first."
      case $state in
        ACTIVE) return ;;
        SUSPENDED)
          $resume || fail "$name was taken away; --resume deletes what is left of it and goes on with another."
          run "${delete_both[@]}" --quiet
          run "${create[@]}"
          continue ;;
        FAILED | DELETING)
          fail "$name is $state, only an ACTIVE slice can be used; --delete it, unless it is DELETING, and try again." ;;
      esac
      if [[ $state != "$said" ]]; then printf '%s is %s; waiting until it is ACTIVE.\n' "$name" "$state"; said=$state; fi
    fi
    sleep 30
  done
}

taken_away() {
  local found state="" found_type
  printf 'The run on %s ended or its connection did; was the slice taken away? It may take 5 minutes to say so.\n' "$name"
  for _ in {1..10}; do
    if look && [[ $state == SUSPEND* ]]; then return 0; fi
    sleep 30
  done
  return 1
}

copy_head() {
  local archive=build/$name.tar.gz
  if ! $dry_run && [[ -n $(git status --porcelain) ]]; then
    printf 'tpu_vm.sh: the working tree differs from HEAD; only what is committed is copied.\n' >&2
  fi
  run mkdir -p build && run git archive --format=tar.gz --output="$archive" HEAD &&
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
rm -rf cc_jax configs launch
tar -xzf ../cc_jax.tar.gz
python3 -m pip install --quiet --user uv
[ -x .venv/bin/python ] || python3 -m uv venv --quiet --python 3.11 .venv
python3 -m uv pip install --quiet --python .venv/bin/python -e ".[tpu]"'

# gcloud repeats a command whose connection broke, so a second start must do nothing.
start='cd cc_jax || exit
if '$running'; then exit; fi
rm -f train.exit
setsid nohup bash -c '\''trap : TERM; launch/stoppable.sh "$@"; echo $? > train.exit'\'' train'

follow='cd cc_jax || exit
while '$running'; do sleep 0.2; done &
tail --pid=$! -s 0.2 -n +1 -F train.log
exit "$(cat train.exit || echo 1)"'
}

if $delete; then
  run "${delete_both[@]}"
  exit
fi
train=$(printf ' %q' .venv/bin/python -u -m cc_jax.main --distributed "$@")
go() {  # set -e does not reach into this
  copy_head && on_hosts all "$install" && on_hosts all "$start$train > train.log 2>&1 < /dev/null &
echo \$! > train.pid" && on_hosts 0 "$follow"
}

while true; do
  create_or_reuse
  status=0
  go || status=$?
  if ! $resume || ((status == 0)); then exit "$status"; fi
  until taken_away; do
    ((status == 255)) || exit "$status"
    status=0  # only the connection broke
    on_hosts 0 "$follow" || status=$?
    ((status)) || exit 0
  done
done
