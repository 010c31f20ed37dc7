// The same surroundings after 1-1: nothing of it is left.
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	if (access("/tmp/left", F_OK) == 0 || kill(-1, 0) == 0)
		return 1;
	puts("Test PASSED");
	return 0;
}
