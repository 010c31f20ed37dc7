// Who may do what with files: as root, as an owner, as a member of a group and as somebody else. Prints a line for each call; started
// as root.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *who, const char *what, long result)
{
	printf("%s: %s: %s\n", who, what, result < 0 ? strerrorname_np(errno) : "ok");
}

#define TRY(call) say(who, #call, (long)(call))

static long opened(const char *path, int flags)
{
	int fd = open(path, flags, 0666);
	if (fd >= 0)
		close(fd);
	return fd;
}

static void show(const char *path)
{
	struct stat st;
	if (lstat(path, &st) == 0)
		printf("%s: %o %d:%d\n", path, st.st_mode, st.st_uid, st.st_gid);
	else
		printf("%s: %s\n", path, strerrorname_np(errno));
}

// Everything that somebody may try in the folder, which is the working directory.
static void attempt(const char *who)
{
	TRY(opened("private", O_RDONLY));
	TRY(opened("private", O_WRONLY));
	TRY(opened("group", O_RDONLY));
	TRY(opened("group", O_RDWR));
	TRY(opened("others", O_RDONLY));
	TRY(opened("others", O_WRONLY | O_TRUNC));
	TRY(opened("others", O_RDONLY | O_TRUNC));
	TRY(opened("private", O_PATH));
	TRY(opened("private", O_RDONLY | O_NOATIME));
	TRY(opened("closed/inside", O_RDONLY));
	TRY(opened("listed/inside", O_RDONLY));
	TRY(opened("listed", O_RDONLY | O_DIRECTORY));
	TRY(opened("searched", O_RDONLY | O_DIRECTORY));
	TRY(opened("searched/inside", O_RDONLY));
	TRY(opened("searched/new", O_CREAT | O_WRONLY));
	TRY(opened("private", O_CREAT | O_WRONLY));
	TRY(opened("private", O_CREAT | O_EXCL | O_WRONLY));
	TRY(chdir("closed"));
	TRY(access("private", R_OK));
	TRY(access("private", F_OK));
	TRY(access("group", W_OK));
	TRY(access("others", R_OK | W_OK));
	TRY(access("others", X_OK));
	TRY(access("closed/inside", F_OK));
	TRY(mkdir("searched", 0700));
	TRY(mkdir("searched/new", 0700));
	TRY(mkdir("listed/inside", 0700));
	TRY(rmdir("searched/empty"));
	TRY(unlink("sticky/roots"));
	TRY(unlink("searched/inside"));
	TRY(unlink("searched/missing"));
	TRY(rename("sticky/roots", "sticky/other"));
	TRY(rename("others", "sticky/others"));
	TRY(symlink("x", "searched/link"));
	TRY(chmod("group", 0666));
	TRY(chown("group", geteuid(), -1));
	TRY(chown("group", -1, getegid()));
	TRY(truncate("others", 3));
	TRY(truncate("private", 3));
	TRY(utimensat(AT_FDCWD, "others", NULL, 0));
	struct timespec times[2] = {{1, 2}, {3, 4}};
	TRY(utimensat(AT_FDCWD, "others", times, 0));
	TRY(utimensat(AT_FDCWD, "private", NULL, 0));
	TRY(setuid(0));
	TRY(opened("/proc/self/fd/0", O_PATH));
	TRY(opened("/proc/self/fd", O_RDONLY | O_DIRECTORY));

	// A file of its own, in a folder where others have theirs.
	TRY(opened("sticky/mine", O_CREAT | O_EXCL | O_WRONLY));
	show("sticky/mine");
	TRY(chmod("sticky/mine", 06711));
	show("sticky/mine");
	TRY(chown("sticky/mine", -1, getegid()));
	show("sticky/mine");
	TRY(chmod("sticky/mine", 0));
	TRY(opened("sticky/mine", O_RDONLY));
	TRY(rename("sticky/mine", "sticky/moved"));
	TRY(link("sticky/moved", "sticky/second"));
	TRY(unlink("sticky/second"));
	TRY(unlink("sticky/moved"));
	TRY(mkdir("sticky/folder", 0777));
	TRY(opened("setgid/file", O_CREAT | O_WRONLY));
	TRY(mkdir("setgid/folder", 0755));
	show("setgid/file");
	show("setgid/folder");
	TRY(rename("sticky/folder", "setgid/moved"));
	TRY(rmdir("setgid/moved"));
	TRY(unlink("setgid/file"));
	TRY(rmdir("setgid/folder"));
	fflush(stdout);
}

static void as(const char *who, uid_t uid, gid_t gid, gid_t extra)
{
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		if (setgroups(extra != 0, &extra) || setgid(gid) || setuid(uid))
			_exit(2);
		attempt(who);
		_exit(0);
	}
	int status;
	waitpid(child, &status, 0);
	printf("%s ended with %d\n", who, status);
}

static void make(const char *path, mode_t mode, uid_t uid, gid_t gid)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	if (fd < 0 || write(fd, "contents\n", 9) != 9 || fchown(fd, uid, gid) || fchmod(fd, mode))
		perror(path);
	close(fd);
}

static void folder(const char *path, mode_t mode, uid_t uid, gid_t gid)
{
	if (mkdir(path, 0700) || chown(path, uid, gid) || chmod(path, mode))
		perror(path);
}

int main(void)
{
	umask(022);
	char top[] = "/tmp/permissions.XXXXXX";
	if (!mkdtemp(top) || chdir(top) || chmod(".", 0755))
		return 1;
	make("private", 0600, 1001, 2001);
	make("group", 0060, 1001, 2001);
	make("others", 0006, 1001, 2001);
	folder("closed", 0700, 0, 0);
	make("closed/inside", 0666, 0, 0);
	folder("listed", 0744, 0, 0);
	make("listed/inside", 0666, 0, 0);
	folder("searched", 0711, 0, 0);
	make("searched/inside", 0666, 0, 0);
	folder("searched/empty", 0777, 0, 0);
	folder("sticky", 01777, 0, 0);
	make("sticky/roots", 0666, 0, 0);
	folder("setgid", 02777, 0, 2005);

	as("owner", 1001, 2001, 0);
	as("member", 1002, 2002, 2001);
	as("main group", 1003, 2001, 0);
	as("stranger", 1004, 2004, 2005);

	// Real and effective numbers: access(2) asks by the former, files by the file system's own.
	const char *who = "mixed";
	TRY(seteuid(1001));
	TRY(opened("private", O_RDONLY));
	TRY(opened("closed/inside", O_RDONLY));
	TRY(access("closed/inside", R_OK));
	TRY(eaccess("closed/inside", R_OK));
	TRY(seteuid(0));
	printf("%d %d\n", setfsuid(1004), setfsuid(-1));
	TRY(opened("private", O_RDONLY));
	TRY(opened("closed/inside", O_RDONLY));
	printf("%d\n", setfsuid(0));
	TRY(opened("private", O_RDONLY));

	// Root: anything but running what nobody may run.
	who = "root";
	TRY(access("private", X_OK));
	TRY(access("closed", X_OK));
	TRY(execl("private", "private", NULL));
	TRY(chown("others", 7, 8));
	TRY(chmod("others", 06755));
	TRY(chown("others", 9, -1));
	show("others");
	TRY(unlink("sticky/roots"));
	return 0;
}
