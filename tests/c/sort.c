/* Exercises malloc, realloc, free, qsort and the string functions; prints checksums. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 1;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t sum(const unsigned char *bytes, size_t count)
{
	uint64_t hash = 14695981039346656037ull;

	while (count--)
		hash = (hash ^ *bytes++) * 1099511628211ull;
	return hash;
}

static int sort(size_t count)
{
	uint64_t *numbers = malloc(count * sizeof *numbers);
	int in_order = 1;

	if (!numbers)
		return 0;
	for (size_t i = 0; i < count; i++)
		numbers[i] = next();
	qsort(numbers, count, sizeof *numbers, compare);
	for (size_t i = 1; i < count; i++)
		in_order &= numbers[i - 1] <= numbers[i];
	printf("%zu numbers, in order: %d, checksum %016llx\n", count, in_order,
	       (unsigned long long)sum((unsigned char *)numbers, count * sizeof *numbers));
	free(numbers);
	return in_order;
}

/* Many blocks of all sizes, grown, shrunk and freed in a random order, each filled with its own byte. */
static int blocks(void)
{
	enum { COUNT = 256, ROUNDS = 20000 };
	static unsigned char *block[COUNT];
	static size_t size[COUNT];

	for (int round = 0; round < ROUNDS; round++) {
		size_t i = next() % COUNT;
		size_t kept = size[i], wanted = next() % (round % 100 ? 2000 : 300000) + 1;

		if (block[i] && next() % 3 == 0) {
			free(block[i]);
			block[i] = NULL;
			size[i] = 0;
			continue;
		}
		block[i] = realloc(block[i], wanted);
		if (!block[i])
			return 0;
		if (kept > wanted)
			kept = wanted;
		for (size_t at = 0; at < kept; at++)
			if (block[i][at] != (unsigned char)i)
				return 0;
		memset(block[i], (int)i, wanted);
		size[i] = wanted;
	}
	for (int i = 0; i < COUNT; i++) {
		for (size_t at = 0; at < size[i]; at++)
			if (block[i][at] != (unsigned char)i)
				return 0;
		free(block[i]);
	}
	return 1;
}

static int strings(void)
{
	enum { SIZE = 1 << 20 };
	char *a = malloc(SIZE + 64), *b = malloc(SIZE + 64);
	int right = a && b;

	for (int shift = 0; right && shift < 32; shift++) {
		memset(a, 'a' + shift % 26, SIZE);
		a[SIZE - shift] = 0;
		memcpy(b + shift, a, SIZE - shift + 1);
		right &= strlen(b + shift) == (size_t)(SIZE - shift);
		right &= memcmp(a, b + shift, SIZE - shift) == 0;
		memmove(b + shift + 1, b + shift, 4096);
		right &= strchr(a, 'A') == NULL && memcmp(a, b + shift + 1, 4096) == 0;
	}
	free(a);
	free(b);
	return right;
}

int main(void)
{
	int right = sort(10) & sort(1000) & sort(100000);

	printf("blocks: %s\n", blocks() ? "right" : "wrong");
	printf("strings: %s\n", strings() ? "right" : "wrong");
	return right ? 0 : 1;
}
