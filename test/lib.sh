# shellcheck shell=bash disable=SC2034
# lib.sh: what test/check, test/demo and test/matrix share; sourced by bash, never run.
#
# Words: the user is the unprivileged account that the throw-away server runs as (postgres when we are root, else whoever
# calls); the scratch directory holds a copy of the sources, the cluster and every output, and is removed at exit.

set -eEuo pipefail
trap 'printf "%s: line %s: status %s: %s\n" "${BASH_SOURCE[0]##*/}" "$LINENO" "$?" "$BASH_COMMAND" >&2' ERR
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scratch=
keep=
postmaster=

# How cppcheck reads the sources, in their directory: without the server's headers, whose macros it need not know.
cppcheck_options=(--quiet --inline-suppr '--enable=warning,portability' --suppress=missingInclude
	--suppress=nullPointerRedundantCheck --suppress=internalAstError --suppress=unknownMacro
	-DPG_VERSION_NUM=150000 -DLIBCURL_VERSION_NUM=0x075800 -DPG_MODULE_MAGIC= '-DPG_FUNCTION_INFO_V1(x)=' '-DStaticAssertDecl(a,b)=' -Isrc)

say() { printf '%s\n' "$*"; }
note() { printf '%s\n' "-- $*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# root COMMAND...: runs it as root, by sudo where we are somebody else.
root() {
	if [[ $(id -u) == 0 ]]; then
		"$@"
	else
		command -v sudo >/dev/null || die "this step needs root or sudo: $*"
		sudo --preserve-env=DEBIAN_FRONTEND "$@"
	fi
}

# as_user COMMAND...: runs it as the unprivileged user.
as_user() {
	if [[ $(id -u) == 0 ]]; then
		runuser -u "$user" -- "$@"
	else
		"$@"
	fi
}

have_package() {
	[[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

apt_updated=
apt_lists() {
	[[ -z $apt_updated ]] || return 0
	root apt-get update -qq >/dev/null || note "apt-get update failed; going on with the lists that are there"
	apt_updated=1
}

# need PACKAGE...: installs those that are missing. No service is started and no "main" cluster is made on the way;
# both are held back only while apt runs.
need() {
	local missing=() p
	for p in "$@"; do
		have_package "$p" || [[ " ${missing[*]} " == *" $p "* ]] || missing+=("$p")
	done
	[[ ${#missing[@]} -gt 0 ]] || return 0
	command -v apt-get >/dev/null || die "missing, and there is no apt here to install it: ${missing[*]}"
	note "apt-get install ${missing[*]}"
	apt_lists
	local dropin=/etc/postgresql-common/createcluster.d/partner_portal_test.conf policy=/usr/sbin/policy-rc.d own_policy='' log rc=0
	log=$(mktemp)
	root mkdir -p "${dropin%/*}"
	echo 'create_main_cluster = false' | root tee "$dropin" >/dev/null
	if [[ ! -e $policy ]]; then
		printf '#!/bin/sh\nexit 101\n' | root tee "$policy" >/dev/null
		root chmod 755 "$policy"
		own_policy=1
	fi
	root apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold \
		"${missing[@]}" </dev/null >"$log" 2>&1 || rc=$?
	root rm -f "$dropin"
	[[ -z $own_policy ]] || root rm -f "$policy"
	if [[ $rc != 0 ]]; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		die "apt-get install failed: ${missing[*]}"
	fi
	rm -f "$log"
}

# find_server: sets PG_CONFIG, bindir and major; installs Debian's server, its headers and what the build needs.
# PG_CONFIG in the environment chooses another server, which must be complete.
find_server() {
	if [[ -z ${PG_CONFIG:-} ]]; then
		local newest
		newest=$(find /usr/lib/postgresql -maxdepth 3 -path '*/bin/postgres' 2>/dev/null | sort -V | tail -n 1) || true
		if [[ -n $newest ]]; then
			major=${newest#/usr/lib/postgresql/}
			major=${major%%/*}
		else
			apt_lists
			major=$(apt-cache show --no-all-versions postgresql 2>/dev/null | sed -n 's/^Version: \([0-9]*\).*/\1/p' | head -n 1)
			[[ -n $major ]] || die "apt knows no package postgresql"
		fi
		need "postgresql-$major" "postgresql-client-$major" "postgresql-server-dev-$major"
		PG_CONFIG=/usr/lib/postgresql/$major/bin/pg_config
	fi
	need make gcc libc6-dev libcurl4-openssl-dev libssl-dev
	export PG_CONFIG
	bindir=$("$PG_CONFIG" --bindir)
	export PATH=$bindir:$PATH
	major=$("$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
	pgtest=$(dirname "$("$PG_CONFIG" --pgxs)")/../test
	[[ $major -ge 15 ]] || die "PostgreSQL 15 or newer is needed, $PG_CONFIG is of $major"
	user=$(id -un)
	if [[ $(id -u) == 0 ]]; then
		user=postgres
		id -u "$user" >/dev/null 2>&1 || user=nobody
	fi
}

# sanitize: from here on the extension is built with the address and undefined behaviour sanitizers, and servers run under
# them, to whose logs they report. With Debian 12's gcc no server starts so.
build_flags=()
under=()
sanitize() {
	local library
	library=$(realpath "$(gcc -print-file-name=libasan.so)")
	build_flags=("COPT=-fsanitize=address,undefined -fno-sanitize=alignment -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1")
	under=(env "LD_PRELOAD=$library" ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1)
}

# sources: the files of the checkout in the working directory, tracked or not ignored, as a tar archive; of an unpacked
# release all but what a build makes.
sources() {
	if [[ $(git rev-parse --show-toplevel 2>/dev/null) == "$PWD" ]]; then
		git ls-files -co --exclude-standard -z |
			while IFS= read -r -d '' f; do [[ ! -e $f ]] || printf '%s\0' "$f"; done |
			tar --null -T - -cf -
	else
		tar --exclude=.git --exclude='*.o' --exclude='*.bc' --exclude='*.so' -cf - .
	fi
}

# make_scratch: the scratch directory with a copy of the sources, which the unprivileged user may read wherever the
# checkout lies.
make_scratch() {
	scratch=$(mktemp -d "${TMPDIR:-/tmp}/partner_portal.XXXXXX")
	chmod 755 "$scratch"
	trap finish EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	trap 'exit 141' PIPE
	mkdir "$scratch/src"
	(cd "$top" && sources) | tar -C "$scratch/src" -xf -
	mkdir "$scratch/home"
	cd "$scratch"
	own_scratch
}

own_scratch() {
	[[ $(id -u) != 0 ]] || chown -R "$user": "$scratch"
}

# build_install [MAKE_ARGUMENT...]: builds in the scratch copy and installs into the server.
build_install() {
	if ! as_user make -s -j2 -C "$scratch/src" PG_CONFIG="$PG_CONFIG" with_llvm=no "$@" >"$scratch/build.log" 2>&1; then
		cat "$scratch/build.log" >&2
		return 1
	fi
	local to_root=
	[[ -w $("$PG_CONFIG" --pkglibdir) ]] || to_root=root
	if ! $to_root make -s -C "$scratch/src" PG_CONFIG="$PG_CONFIG" with_llvm=no install "$@" >"$scratch/install.log" 2>&1; then
		cat "$scratch/install.log" >&2
		return 1
	fi
}

# start_server [SETTING...]: a throw-away cluster on a unix socket in the scratch directory, superuser "postgres".
start_server() {
	as_user "$bindir/initdb" -D "$scratch/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 --no-sync >"$scratch/initdb.log" 2>&1 ||
		{ cat "$scratch/initdb.log" >&2; die "initdb failed"; }
	{
		echo "unix_socket_directories = '$scratch'"
		echo "listen_addresses = ''"
		echo "fsync = off"
		echo "timezone = 'UTC'"
		echo "max_prepared_transactions = 10"
		echo "log_min_messages = warning"
		printf '%s\n' "$@"
	} | as_user tee -a "$scratch/data/postgresql.conf" >/dev/null
	as_user "${under[@]}" "$bindir/pg_ctl" -D "$scratch/data" -l "$scratch/server.log" -w -s start ||
		{ cat "$scratch/server.log" >&2; die "the server did not start"; }
	postmaster=$(head -n 1 "$scratch/data/postmaster.pid")
	export PGHOST=$scratch PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
	export HOME=$scratch/home
	unset PGOPTIONS PGSERVICE PGPASSWORD PGPASSFILE PSQLRC
	cd "$scratch"
}

# stop_pid PID: stops a postmaster of ours and waits until it is gone.
stop_pid() {
	local i
	kill -INT "$1" 2>/dev/null || return 0
	for i in $(seq 150); do
		kill -0 "$1" 2>/dev/null || return 0
		[[ $i != 100 ]] || kill -QUIT "$1" 2>/dev/null || true
		sleep 0.1
	done
	note "server $1 did not stop"
}

# privileged COMMAND...: runs it as root if that needs nobody's password, and fails otherwise.
privileged() {
	if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

# drop_small_disk: unmounts what test/check has mounted for a test.
drop_small_disk() {
	if mountpoint -q "$scratch/small"; then privileged umount -l "$scratch/small"; fi
}

# finish: at exit, stops what runs out of the scratch directory, by its own pid, and removes it.
finish() {
	local code=$? f
	trap '' INT TERM HUP PIPE
	if [[ -z $keep && -n $scratch ]]; then
		cd /
		while IFS= read -r f; do
			stop_pid "$(head -n 1 "$f")"
		done < <(find "$scratch" -name postmaster.pid 2>/dev/null)
		drop_small_disk
		rm -rf --one-file-system "$scratch"
	fi
	exit $code
}
