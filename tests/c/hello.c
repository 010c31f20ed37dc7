/* Shows its arguments and environment, on both streams, and ends with status 7. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	const char *answer = getenv("ANSWER");

	printf("hello: %d arguments\n", argc - 1);
	for (int i = 1; i < argc; i++)
		printf("  %d: \"%s\"\n", i, argv[i]);
	printf("ANSWER=%s PATH=%s\n", answer ? answer : "(none)", getenv("PATH"));
	printf("%.10f %lld %s\n", 2.0 / 3.0, 1LL << 62, "end");
	fprintf(stderr, "this is stderr\n");
	return 7;
}
