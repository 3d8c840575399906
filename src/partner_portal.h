/*-------------------------------------------------------------------------
 *
 * partner_portal.h
 *		What the files of partner_portal share.
 *
 * A workspace is a company's tenant; a partner is a workspace that has
 * customers; an account is a person who signs in.  Prototypes stand under the
 * file that has the function.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PARTNER_PORTAL_H
#define PARTNER_PORTAL_H

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/guc.h"
#include "utils/relcache.h"

#include "compat.h"

#define PP_SCHEMA	"partner_portal"

/* Our class of SQLSTATEs; spec, "Errors and self-checks". */
#define ERRCODE_PP_LIMIT_REACHED			MAKE_SQLSTATE('P','P','0','0','1')
#define ERRCODE_PP_INVITATION_NOT_USABLE	MAKE_SQLSTATE('P','P','0','0','2')
#define ERRCODE_PP_FINISHED_DOCUMENT		MAKE_SQLSTATE('P','P','0','0','3')
#define ERRCODE_PP_LAST_OWNER				MAKE_SQLSTATE('P','P','0','0','4')
#define ERRCODE_PP_WRONG_STATE				MAKE_SQLSTATE('P','P','0','0','5')

/* in guc.c: the settings, see the descriptions there */
extern char *pp_jwks_file;
extern char *pp_token_audience;
extern char *pp_token_issuer;
extern int	pp_clock_skew;
extern int	pp_subject_claim;
extern bool pp_restoring_setting;
extern bool pp_allow_drop;
extern char *pp_workspace_url;
extern char *pp_link_base_url;

enum
{
	PP_SUBJECT_ACCOUNT_ID,
	PP_SUBJECT_EMAIL
};

extern void pp_define_settings(void);

/* in identity.c: who is asking, for the current transaction */
typedef struct PpIdentity
{
	int64		account_id;
	int64		workspace_id;	/* where it acts; 0 is not chosen */
	int64		portal_id;		/* acting portal; 0 is none */
	TimestampTz expires_at;		/* DT_NOEND if it does not expire */
} PpIdentity;

extern void pp_define_identity(void);
extern void pp_identity_hooks(void);
extern const PpIdentity *pp_identity(void);
extern void pp_identity_set(const PpIdentity *identity);

#endif							/* PARTNER_PORTAL_H */
