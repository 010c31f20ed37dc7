// Fails in the guest on purpose: only there the list of programs is a file.
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	if (access("/etc/conformance-list", F_OK) == 0) {
		puts("this is the guest");
		return 1;
	}
	return 0;
}
