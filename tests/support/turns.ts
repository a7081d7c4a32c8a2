// Turns of a conversation, by who speaks.

export const system = (content: string) => ({ role: 'system', content });
export const user = (content: string) => ({ role: 'user', content });
export const assistant = (content: string) => ({ role: 'assistant', content });
