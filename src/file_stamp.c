/*-------------------------------------------------------------------------
 *
 * file_stamp.c
 *		What tells one state of a file from another, for those that remember
 *		what they have read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "partner_portal.h"

/* A file younger than this may change again without a change of its times. */
#define SETTLING_SECONDS	2

/*
 * pp_stamp_file takes the stamp of a file.  Two stamps are compared as bytes.
 */
void
pp_stamp_file(const char *path, PpFileStamp *stamp)
{
	struct stat st;

	memset(stamp, 0, sizeof(PpFileStamp));
	if (stat(path, &st) < 0)
	{
		stamp->error = errno;
		return;
	}
	stamp->device = st.st_dev;
	stamp->inode = st.st_ino;
	stamp->size = st.st_size;
	stamp->mode = st.st_mode;
	stamp->owner = st.st_uid;
	stamp->modified = st.st_mtim;
	stamp->changed = st.st_ctim;
}

/*
 * pp_stamp_settled tells whether what is read after the stamp was taken may be
 * remembered by it: another state would have another stamp.
 */
bool
pp_stamp_settled(const PpFileStamp *stamp)
{
	return stamp->error == 0 &&
		time(NULL) - Max(stamp->modified.tv_sec, stamp->changed.tv_sec) > SETTLING_SECONDS;
}
