# This is the first process in the namespaces of a server. It builds the server's root and runs the server in it.
#   sh -c "$script" sandbox PACKAGES STATE COMMAND...
# PACKAGES is the folder of unpacked packages. STATE has the folders etc, whose files are copied into /etc, and srv, which
# becomes /srv. The shell stays the first process and does not exec the server: if a server changes its group, the kernel
# clears the parent-death signal.
set -e
P=$1 S=$2
shift 2
M=$S/root
echo mail.example.org > /proc/sys/kernel/hostname # only in this namespace; servers greet with this name
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
