/* Says which of its streams are terminals. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	for (int fd = 0; fd < 3; fd++)
		printf("%s%c", isatty(fd) ? "yes" : "no", fd < 2 ? ' ' : '\n');
	return 0;
}
