#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster that xpk made (pip install xpk), from an image of this repository.
#
#   launch/gke_xpk.sh --name NAME --cluster CLUSTER --type TYPE --image IMAGE [OPTIONS] -- ARGUMENTS OF cc_jax.main
#   launch/gke_xpk.sh --name NAME --cluster CLUSTER --delete [--zone ZONE] [--project PROJECT] [--dry-run]
#
#   --name NAME        the workload
#   --cluster CLUSTER  the cluster
#   --type TYPE        its TPU slices, for example v5litepod-16 or v6e-64
#   --image IMAGE      made by launch/Dockerfile:
#                      docker build -f launch/Dockerfile --build-arg EXTRA=tpu -t IMAGE . && docker push IMAGE
#   --slices N         how many slices (1)
#   --restarts N       how often a run that failed or was cut off starts again (10)
#   --zone, --project  without them, those of gcloud's own configuration
#   --delete           deletes the workload (xpk asks first) and does nothing else
#   --dry-run          prints the command, quoted for bash, and runs none
#   --help             prints this
#
# Pods share no disk, so --workdir belongs in a bucket. Logs: kubectl logs -f -l jobset.sigs.k8s.io/jobset-name=NAME
#
#   launch/gke_xpk.sh --name cc --cluster pods --type v5litepod-256 --image REGISTRY/cc_jax -- \
#     --config configs/siglip_b16_cc.py --workdir gs://BUCKET/runs/b16 --config.optim.lr=5e-4

set -euo pipefail

fail() { printf 'gke_xpk.sh: %s\n' "$1" >&2; exit 2; }

name="" cluster="" type="" image="" slices=1 restarts=10 zone="" project="" delete=false dry_run=false
while (($#)); do
  case $1 in
    --name=* | --cluster=* | --type=* | --image=* | --slices=* | --restarts=* | --zone=* | --project=*)
      set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --name | --cluster | --type | --image | --slices | --restarts | --zone | --project)
      [[ -n ${2-} && ${2-} != --* ]] || fail "$1 needs a value, found '${2-}' (see --help)."
      printf -v "${1#--}" '%s' "$2"; shift 2 ;;
    --delete) delete=true; shift ;;
    --dry-run) dry_run=true; shift ;;
    --help) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
    --) shift; break ;;
    *) fail "unknown option '$1'; arguments of cc_jax.main follow a --, and before it these are allowed:
  --name, --cluster, --type, --image, --slices, --restarts, --zone, --project, --delete, --dry-run, --help" ;;
  esac
done

[[ -n $name ]] || fail "--name is missing: the workload, for example --name cc."
[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
  fail "--name is '$name'; allowed: up to 40 of a-z, 0-9 and inner -, a letter first."
[[ -n $cluster ]] || fail "--cluster is missing: the cluster that xpk made, for example --cluster pods."
if $delete; then
  (($# == 0)) || fail "--delete starts no run, but arguments for one follow the --: '$1'; give one or the other."
else
  [[ -n $type ]] || fail "--type is missing: the type of TPU slice, for example --type v5litepod-16."
  [[ -n $image ]] || fail "--image is missing: the image to run; --help shows how it is made."
  [[ $slices =~ ^[1-9][0-9]*$ ]] || fail "--slices is '$slices'; allowed: a whole number from 1."
  [[ $restarts =~ ^[0-9]+$ ]] || fail "--restarts is '$restarts'; allowed: a whole number."
  (($#)) || fail "nothing to run; give the arguments of cc_jax.main after a --, for example
  -- --config configs/siglip_b16_cc.py --workdir gs://BUCKET/run"
fi
$dry_run || command -v xpk > /dev/null || fail "xpk is not on PATH; install it: pip install xpk"

run() { printf '%q' "$1"; printf ' %q' "${@:2}"; printf '\n'; $dry_run || "$@"; }  # shows a command as bash would read it

# xpk writes the command into a line of YAML: one line, in ASCII. Kubernetes makes $$ a $, and $(NAME) a variable's value.
in_pod() {
  local LC_ALL=C text
  printf -v text ' %q' "$@"
  printf 'exec%s' "${text//\$/\$\$}"
}

where=(--workload="$name" --cluster="$cluster")
if [[ -n $zone ]]; then where+=(--zone="$zone"); fi
if [[ -n $project ]]; then where+=(--project="$project"); fi
if $delete; then
  run xpk workload delete "${where[@]}"
  exit
fi
# No --distributed: a slice of one host is one process, and its pod says nothing of others. Where a host is lost, the
# others end with an error, which xpk would take for one of the code and not start again.
run xpk workload create "${where[@]}" --tpu-type="$type" --num-slices="$slices" --docker-image="$image" \
  --max-restarts="$restarts" --restart-on-exit-codes=1 --termination-grace-period-seconds=300 \
  --command="$(in_pod launch/stoppable.sh python -u -m cc_jax.main "$@")"
