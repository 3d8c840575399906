/*-------------------------------------------------------------------------
 *
 * csv.c
 *		libFuzzer target: what src/csv.c feeds to COPY's parser.
 *
 * The first byte says in which portions the parser asks.  What it gets must not
 * depend on them, must have no line that is nothing but \., no CR outside
 * quotes, and as many records as next_record() counts.
 *
 *-------------------------------------------------------------------------
 */
#include "../../src/csv.c"

#include "server.h"

/*
 * fed returns all that the parser gets in portions of at most so many bytes.
 */
static char *
fed(const char *text, size_t size, int most, size_t *length)
{
	char	   *all = palloc(size * 2 + 16);

	memset(&feed, 0, sizeof(feed));
	feed.at = text;
	feed.end = text + size;
	feed.line_begins = true;
	*length = 0;
	for (;;)
	{
		char	   *portion = palloc(most);
		int			n = feed_parser(portion, 1, most);

		if (n < 0 || n > most || *length + n > size * 2 + 16)
			abort();
		if (n == 0)
			return all;
		memcpy(all + *length, portion, n);
		*length += n;
		pfree(portion);
	}
}

/*
 * check_fed checks what was fed, and returns how many records it has.
 */
static int
check_fed(const char *text, size_t length)
{
	bool		in_quotes = false;
	size_t		line = 0;
	int			records = 0;

	for (size_t i = 0; i <= length; i++)
	{
		if (i == length || (text[i] == '\n' && !in_quotes))
		{
			if (i - line == 2 && memcmp(text + line, "\\.", 2) == 0)
				abort();
			records += i < length || i > line;
			line = i + 1;
		}
		else if (text[i] == '"')
			in_quotes = !in_quotes;
		else if (text[i] == '\r' && !in_quotes)
			abort();
	}
	return records;
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	CsvPlace	place;
	char	   *text;
	char	   *whole;
	char	   *parts;
	size_t		whole_length;
	size_t		parts_length;
	int			records = 0;

	if (size < 1)
		return 0;
	text = palloc(size);
	memcpy(text, data + 1, size - 1);
	whole = fed(text, size - 1, 65536, &whole_length);
	parts = fed(text, size - 1, data[0] % 7 + 1, &parts_length);
	if (whole_length != parts_length || memcmp(whole, parts, whole_length) != 0)
		abort();
	place.at = text;
	place.line = 1;
	while (place.at < text + size - 1)
	{
		(void) next_record(&place, text + size - 1);
		records++;
	}
	if (check_fed(whole, whole_length) != records)
		abort();
	fuzz_forget();
	return 0;
}
