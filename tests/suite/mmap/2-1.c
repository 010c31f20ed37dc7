// The same surroundings after 1-1: nothing of it is left.
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	if (access("/tmp/left", F_OK) == 0)
		return 1;
	puts("Test PASSED");
	return 0;
}
