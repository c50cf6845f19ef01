# The first process of a server's namespaces. Builds the server's own root and runs the server in it.
#   sh -c "$script" sandbox PACKAGES STATE COMMAND...
# PACKAGES is the folder of unpacked packages, STATE holds etc (laid over the machine's) and srv (seen as /srv).
# It stays a shell, not the server: a server that changes its group would lose the parent-death signal.
set -e
P=$1 S=$2
shift 2
M=$S/root
echo mail.example.org > /proc/sys/kernel/hostname # of this namespace: servers greet with it
mount -t tmpfs -o mode=755 none "$M"
cd "$M"
mkdir -p usr etc var tmp run proc dev srv root .etc/up .etc/work
chmod 1777 tmp
for l in /bin /sbin /lib /lib32 /lib64 /libx32; do [ ! -L "$l" ] || cp -a "$l" "$M/"; done
mount -t overlay -o "ro,lowerdir=$P/usr:/usr" none usr
mount -t overlay -o "lowerdir=$P/etc:/etc,upperdir=$M/.etc/up,workdir=$M/.etc/work" none etc
cp -a "$S/etc/." etc/
cp -a "$P/var/." var/
mkdir -p var/lib var/log var/mail var/tmp
[ -L var/run ] || { rm -rf var/run; ln -s /run var/run; }
mount --rbind /dev dev
mount -t proc proc proc
mount --bind "$S/srv" srv
chroot "$M" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "$@" &
wait $!
