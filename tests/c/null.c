/* Dereferences NULL after some output: ends by SIGSEGV. */
#include <stdio.h>

int main(void)
{
	int *volatile nothing = NULL;

	printf("before\n");
	fflush(stdout);
	return *nothing;
}
