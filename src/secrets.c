/*-------------------------------------------------------------------------
 *
 * secrets.c
 *		The secrets file: the relay's password and the master keys.
 *
 * partner_portal.secrets_file names a file of lines:
 *
 *		machine mail.example.com login postmaster password s3cret
 *		key 1 <32 bytes in base64>
 *
 * Secrets of webhooks are derived from a master key, so that nothing secret is
 * stored in a table, a setting, a dump or the log.  A new key gets the next
 * number; the old ones stay as long as endpoints made with them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/base64.h"
#include "fmgr.h"
#include "storage/fd.h"
#include "utils/builtins.h"

#include "delivery.h"
#include "partner_portal.h"

#define LINE_MAX_BYTES	1024

typedef bool (*LineTaker) (char **words, int count, void *arg);

typedef struct Relay
{
	const char *host;
	char	   *user;
	size_t		user_size;
	char	   *password;
	size_t		password_size;
} Relay;

typedef struct Key
{
	int			version;		/* asked for; 0 is the latest */
	int			found;
	unsigned char bytes[32];
} Key;

/*
 * check_file refuses a file that others than its owner and group may read.
 */
static void
check_file(FILE *file, const char *path)
{
	struct stat status;

	if (fstat(fileno(file), &status) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat secrets file: %m")));
	if (!S_ISREG(status.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("the secrets file is not a regular file")));
	if ((status.st_uid != geteuid() && status.st_uid != 0) ||
		(status.st_mode & (S_IRWXO | S_IWGRP | S_IXGRP)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("the secrets file has group or world access"),
				 errdetail("It must belong to the database server's user or root and be unreadable to others (0600 or 0640).")));
}

/*
 * read_secrets gives the words of each line to a taker until that returns true.
 * Without a secrets file there are no lines.  Errors never show the content.
 */
static void
read_secrets(LineTaker taker, void *arg)
{
	FILE	   *file;
	char		line[LINE_MAX_BYTES];

	if (pp_secrets_file == NULL || pp_secrets_file[0] == '\0')
		return;
	file = AllocateFile(pp_secrets_file, "r");
	if (file == NULL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open secrets file: %m"),
				 errhint("See partner_portal.secrets_file.")));
	check_file(file, pp_secrets_file);
	while (fgets(line, sizeof(line), file) != NULL)
	{
		char	   *words[8];
		char	   *rest = line;
		char	   *word;
		int			count = 0;

		while (count < lengthof(words) && (word = strtok_r(rest, " \t\r\n", &rest)) != NULL)
			words[count++] = word;
		if (count > 0 && words[0][0] != '#' && taker(words, count, arg))
			break;
	}
	explicit_bzero(line, sizeof(line));
	FreeFile(file);
}

/*
 * take_relay looks for the line of a machine.
 */
static bool
take_relay(char **words, int count, void *arg)
{
	Relay	   *relay = arg;

	if (count != 6 || strcmp(words[0], "machine") != 0 ||
		pg_strcasecmp(words[1], relay->host) != 0 ||
		strcmp(words[2], "login") != 0 || strcmp(words[4], "password") != 0)
		return false;
	strlcpy(relay->user, words[3], relay->user_size);
	strlcpy(relay->password, words[5], relay->password_size);
	return true;
}

/*
 * take_key looks for a master key.
 */
static bool
take_key(char **words, int count, void *arg)
{
	Key		   *key = arg;
	unsigned char bytes[48];
	int			version;

	if (count != 3 || strcmp(words[0], "key") != 0)
		return false;
	version = atoi(words[1]);
	if (version < 1 || (key->version != 0 && key->version != version) || version <= key->found)
		return false;
	if (pg_b64_decode(words[2], strlen(words[2]), (void *) bytes, sizeof(bytes)) != 32)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("key %d of the secrets file is not 32 bytes in base64", version)));
	key->found = version;
	memcpy(key->bytes, bytes, 32);
	explicit_bzero(bytes, sizeof(bytes));
	return key->version != 0;
}

/*
 * pp_secret_relay fills in user and password for a relay; empty without a line
 * for it.
 */
void
pp_secret_relay(const char *host, char *user, size_t user_size,
				char *password, size_t password_size)
{
	Relay		relay = {host, user, user_size, password, password_size};

	user[0] = password[0] = '\0';
	read_secrets(take_relay, &relay);
}

/*
 * pp_secret_key fills in a master key; false if there is none of that version.
 * The last one is remembered until the file changes.
 */
bool
pp_secret_key(int version, unsigned char key[32])
{
	static Key	last;
	static PpFileStamp last_stamp;
	PpFileStamp stamp;
	Key			wanted = {version};

	pp_stamp_file(pp_secrets_file == NULL ? "" : pp_secrets_file, &stamp);
	if (version > 0 && last.found == version && memcmp(&stamp, &last_stamp, sizeof(stamp)) == 0)
	{
		memcpy(key, last.bytes, 32);
		return true;
	}
	last.found = 0;
	read_secrets(take_key, &wanted);
	if (wanted.found == version && pp_stamp_settled(&stamp))
	{
		last = wanted;
		last_stamp = stamp;
	}
	memcpy(key, wanted.bytes, 32);
	explicit_bzero(wanted.bytes, sizeof(wanted.bytes));
	return wanted.found == version && version > 0;
}

/*
 * pp_secret_latest_key returns the version of the newest master key; 0 is none.
 */
int
pp_secret_latest_key(void)
{
	Key			wanted = {0};

	read_secrets(take_key, &wanted);
	explicit_bzero(wanted.bytes, sizeof(wanted.bytes));
	return wanted.found;
}
