// Package fetch brings new mail from a POP3 maildrop to where it is to be kept, and loses none.
package fetch
