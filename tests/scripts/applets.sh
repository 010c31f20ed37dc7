# What busybox's applets make of files, text, archives, pipes, jobs and signals. Run by busybox's own shell, on both sides.
set -u
cd "$(mktemp -d)" || exit 1
mkdir w; cd w
i=0; while [ $i -lt 200 ]; do echo "line $i $((i*37%101))" >> data; i=$((i+1)); done
sort -k3n -k2n data | head -5; sort -r data | tail -3; sort -u -k3,3n data | wc -l
awk '{s+=$3; a[$3%7]++} END {print s; for(k=0;k<7;k++) print k,a[k]}' data
sed -n '10,12s/line/LINE/p' data; grep -c '9$' data; cut -d' ' -f2 data | paste -s -d, - | cut -c1-40
tr a-z A-Z < data | tail -1; uniq -c data | head -2; wc data; md5sum data; sha256sum data; cksum data; sha512sum data | cut -c1-20
mkdir -p a/b/c; for f in 1 2 3 4 5; do cp data a/b/f$f; done; ln -s ../data a/link; ln data a/hard
find a -type f | sort; find a -name 'f[1-3]' -exec echo found {} \; | sort; find . -links 2 -type f | sort; find a -type l
tar cf x.tar a; tar tf x.tar | sort | head -20; mkdir out; tar xf x.tar -C out; diff -r a out/a && echo same
gzip -k data; ls -l data.gz | awk '{print $1}'; gunzip -c data.gz | cmp - data && echo gz; bzip2 -k data; bunzip2 -c data.bz2 | cmp - data && echo bz; xz -k data 2>/dev/null; test -f data.xz && xzcat data.xz | cmp - data
tar czf y.tgz a; tar tzf y.tgz | wc -l; echo a b c d e f | xargs -n2 echo; find a/b -type f | sort | xargs -P2 -n1 md5sum | sort | cut -c1-10
seq 1 5 | while read n; do echo -n "$n "; done; echo; seq 10 -3 0; expr 3 \* 4; printf '%5.2f|%-5s|%05d\n' 3.14159 ab 42
dd if=data of=dd.out bs=100 count=3 2>/dev/null; wc -c dd.out; od -c dd.out | head -2; hexdump -C dd.out | head -1; head -c 20 data | xxd 2>/dev/null
chmod 640 data; stat -c '%a %s %F' data; touch -d '2020-01-02 03:04:05' data; stat -c %Y data; ls -l data | cut -c1-10; mv data moved; test -e data || echo moved
basename /a/b.c .c; dirname /a/b; readlink a/link; env | sort | grep ^LC; id -u; 
(echo one; echo two >&2) 2>&1 | sort; false || echo or; true && echo and; ! true; echo $?
f() { return 3; }; f; echo $?; case abc in a*) echo case;; esac; x=hello; echo ${x#he} ${x%lo} ${#x} ${x:-d} ${y:-d}; echo $((7/2)) $((7%3)) $((1<<10))
cat <<X | tac
one
$x
X
trap 'echo trapped' USR1; kill -USR1 $$; sleep 0.1 & wait; echo waited; (exit 5); echo $?
mkfifo p; (echo through fifo > p) & cat p; wait
timeout 1 sleep 5; echo "timeout $?"; nice -n 5 true; echo $?; echo "1.5+2.25" | bc 2>/dev/null; factor 360; 
echo abc | rev; echo hello | fold -w2; comm -12 a/b/f1 a/b/f2 | wc -l; cmp a/b/f1 moved; split -l 50 moved s.; ls s.*; nl moved | head -1; expand moved | head -1; base64 dd.out | head -1 | base64 -d | head -c 10; echo
du -a a | wc -l; printenv LC_ALL; date -u -d @86400 +%F; cpio -o < /dev/null 2>/dev/null | wc -c; ls a | cpio -o 2>/dev/null | wc -c
vi -h 2>&1 | head -1 | cut -c1-2; rm -rf a; ls; cd ..; rm -r w; ls -d w 2>&1
for n in 1 2 3; do ( exit $n ) & done; wait; ulimit -n 64; ulimit -n; umask 077; touch u; stat -c %a u; rm u
exit 42
