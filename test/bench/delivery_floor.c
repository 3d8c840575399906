/*
 * delivery_floor.c: what bare libcurl does with the same peer: COUNT transfers, AT_ONCE under way, kept alive.
 *		delivery_floor URL COUNT AT_ONCE BYTES
 * http:// posts BYTES bytes, smtp:// mails them.  Prints transfers per second.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char *body;
static size_t length;

typedef struct Slot
{
	CURL	   *easy;
	size_t		sent;
} Slot;

static size_t
give(char *into, size_t size, size_t count, void *arg)
{
	Slot	   *slot = arg;
	size_t		take = size * count < length - slot->sent ? size * count : length - slot->sent;

	memcpy(into, body + slot->sent, take);
	slot->sent += take;
	return take;
}

static size_t
drop(char *data, size_t size, size_t count, void *arg)
{
	(void) data;
	(void) arg;
	return size * count;
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int
main(int argc, char **argv)
{
	long		count,
				started = 0,
				ended = 0,
				bad = 0;
	int			at_once,
				running;
	Slot	   *slots;
	CURLM	   *multi;
	struct curl_slist *list;
	double		begin;

	if (argc != 5)
		return 2;
	count = atol(argv[2]);
	at_once = atoi(argv[3]);
	length = atol(argv[4]);
	body = malloc(length);
	for (size_t i = 0; i < length; i++)
		body[i] = i % 72 == 70 ? '\r' : i % 72 == 71 ? '\n' : 'x';
	curl_global_init(CURL_GLOBAL_DEFAULT);
	multi = curl_multi_init();
	slots = calloc(at_once, sizeof(Slot));
	list = strncmp(argv[1], "smtp", 4) == 0 ? curl_slist_append(NULL, "rcpt@peer.example") :
		curl_slist_append(curl_slist_append(NULL, "Content-Type: application/json"), "Expect:");
	begin = now();
	for (int i = 0; i < at_once; i++)
	{
		CURL	   *easy = slots[i].easy = curl_easy_init();

		curl_easy_setopt(easy, CURLOPT_URL, argv[1]);
		curl_easy_setopt(easy, CURLOPT_PRIVATE, &slots[i]);
		curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
		curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, drop);
		if (strncmp(argv[1], "smtp", 4) == 0)
		{
			curl_easy_setopt(easy, CURLOPT_MAIL_FROM, "portal@portal.example");
			curl_easy_setopt(easy, CURLOPT_MAIL_RCPT, list);
			curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
			curl_easy_setopt(easy, CURLOPT_READFUNCTION, give);
			curl_easy_setopt(easy, CURLOPT_READDATA, &slots[i]);
		}
		else
		{
			curl_easy_setopt(easy, CURLOPT_HTTPHEADER, list);
			curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long) length);
			curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
		}
		if (started++ < count)
			curl_multi_add_handle(multi, easy);
	}
	while (ended < count)
	{
		CURLMsg    *message;
		int			left;

		curl_multi_perform(multi, &running);
		while ((message = curl_multi_info_read(multi, &left)) != NULL)
		{
			Slot	   *slot;
			CURL	   *easy = message->easy_handle;

			bad += message->data.result != CURLE_OK;
			ended++;
			curl_easy_getinfo(easy, CURLINFO_PRIVATE, &slot);
			slot->sent = 0;
			curl_multi_remove_handle(multi, easy);
			if (started++ < count)
				curl_multi_add_handle(multi, easy);
		}
		if (ended < count)
			curl_multi_poll(multi, NULL, 0, 100, NULL);
	}
	printf("%.0f\n", count / (now() - begin));
	return bad > 0;
}
