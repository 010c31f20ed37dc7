// Passes on both sides if the surroundings are what they should be: a session, a working directory from which the suite is found, an
// empty /tmp, and a parent that is the first process after init. It leaves a process and a file behind, which must not be there for the next program.
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int main(void)
{
	struct stat tmp;
	if (getsid(0) != getpid() || getppid() > 20)
		return 1;
	if (access("/tmp/left", F_OK) == 0 || stat("/tmp", &tmp) != 0 || (tmp.st_mode & 07777) != 01777)
		return 1;
	if (lstat("conformance", &tmp) != 0 || geteuid() != 0)
		return 1;
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED || page[4095] != 0)
		return 1;
	if (open("/tmp/left", O_CREAT | O_WRONLY, 0600) < 0)
		return 2;
	if (fork() == 0) {
		setsid();
		for (;;)
			pause();
	}
	puts("Test PASSED");
	return 0;
}
