/* What standard input is: its type and flags, and what calls on it answer. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static long told(long result)
{
	return result < 0 ? -errno : result;
}

int main(void)
{
	char byte;
	struct stat stat;

	fstat(0, &stat);
	printf("type %o, device %lu, flags %x\n", stat.st_mode & S_IFMT, (long)stat.st_rdev, fcntl(0, F_GETFL));
	printf("pread %ld, lseek %ld, read %ld\n", told(pread(0, &byte, 1, 0)), told(lseek(0, 0, SEEK_CUR)),
	       told(read(0, &byte, 1)));
	return 0;
}
