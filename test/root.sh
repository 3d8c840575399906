# shellcheck shell=bash disable=SC2154
# root.sh: bare Debian roots, for test/matrix and test/sanitize; sourced after lib.sh, as root. Each is made by debootstrap once
# and kept with its packages under $cache.

[[ $(id -u) == 0 ]] || die "run it as root (debootstrap, chroot)"
need debootstrap

mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' \
	/etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -n 1) || true
mirror=${mirror:-http://deb.debian.org/debian}

mounted=
leave() {
	local code=$? m
	trap - ERR
	for m in dev/shm dev proc; do
		if [[ -n $mounted ]] && mountpoint -q "$mounted/$m"; then umount -l "$mounted/$m"; fi
	done
	mounted=
	return $code
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# enter RELEASE: makes its root if need be and mounts what a server needs
enter() {
	root=$cache/$1
	if [[ ! -e $root.made ]]; then
		note "debootstrap $1 in $root"
		rm -rf --one-file-system "$root"
		mkdir -p "$root"
		debootstrap --variant=minbase --include=ca-certificates "$1" "$root" "$mirror" >"$root.log" 2>&1 ||
			{ tail "$root.log" >&2; die "debootstrap $1 failed"; }
		# a snapshot of a moving release may be older than its date of expiry
		echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/90valid-until"
		touch "$root.made"
	fi
	cp -a /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
	cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
	mounted=$root
	mount -t proc proc "$root/proc"
	mount --bind /dev "$root/dev"
	mount -t tmpfs shm "$root/dev/shm"
	# nothing of an earlier build
	rm -rf "$root/root/partner_portal" "$root"/usr/lib/postgresql/*/lib/partner_portal* "$root"/usr/lib/postgresql/*/lib/bitcode/partner_portal* \
		"$root"/usr/share/postgresql/*/extension/partner_portal*
	mkdir "$root/root/partner_portal"
	(cd "$top" && sources) | tar -C "$root/root/partner_portal" -xf -
}

# inside NAME=VALUE... COMMAND...: runs it in the root that was entered, with nothing of our environment
inside() {
	chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@" </dev/null
}
