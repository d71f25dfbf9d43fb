# Shared by fetch and build; sourced, not run.
# SPDX-License-Identifier: BSD-2-Clause

# Kernel series whose metapackages name the packages to use.
readonly series=6.12
readonly cache=${FERRY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ferry/kernel}

say() { echo "${0##*/}: $*" >&2; }
die() { say "$*"; exit 1; }

# One fetch or build at a time per cache: a second one waits and then finds the work done.
lock_cache() {
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
}

# A directory that disappears when the script ends, whatever way it ends.
scratch_dir() {
    find "$cache" -maxdepth 1 -name 'tmp.*' -exec rm -rf {} +
    scratch=$(mktemp -d "$cache/tmp.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
}
